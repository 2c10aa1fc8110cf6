// Binding of the exact search, refinement and checksums.
#include <pybind11/stl.h>

#include <optional>
#include <string>

#include "bind.hpp"
#include "crc32.hpp"
#include "exact_places.hpp"
#include "exact_rescore.hpp"
#include "exact_search.hpp"

namespace ragrig {
namespace {

Isa path_of(const std::optional<std::string>& isa) { return isa ? parse_isa(*isa) : best_isa(); }

void require_vectors(const Batch& batch) {
  for (const auto& segment : batch.segments) {
    if (!segment->has_vectors()) throw py::value_error("segments: one of them has no vectors");
    if (segment->vector_dim() != batch.dim) {
      throw py::value_error("queries: dim is " + std::to_string(batch.dim) +
                            ", not the vectors' " + std::to_string(segment->vector_dim()));
    }
  }
}

Found exact(const py::list& segments, const py::object& queries, int64_t k,
            const std::string& metric, Pool& pool, const py::object& live,
            const py::object& filters, const py::object& filter_of, const py::object& cancel,
            const std::optional<std::string>& isa) {
  BatchArguments given;
  given.segments(segments);
  given.queries(queries, -1);
  given.wanted(k);
  given.bitmaps(live, filters, filter_of);
  given.cancel(cancel);
  require_vectors(given.batch);
  const Metric measure = parse_metric(metric);
  const Isa path = path_of(isa);
  Found found(given.batch.n, k);
  const Output out = found.output();
  Progress progress;
  {
    py::gil_scoped_release released;
    exact_search(given.batch, measure, path, pool, out, progress);
  }
  found.finish(progress);
  return found;
}

Found rescore(const py::list& segments, const py::object& queries, const py::object& rows,
              const py::object& counts, int64_t k, const std::string& metric, Pool& pool,
              const std::optional<std::string>& isa) {
  BatchArguments given;
  given.segments(segments);
  given.queries(queries, -1);
  given.wanted(k);
  require_vectors(given.batch);
  Batch& batch = given.batch;
  batch.refine_queries = batch.queries;
  batch.refine_dim = batch.dim;
  const View<int64_t> found_rows = view<int64_t>(rows, "rows", 2);
  const View<int32_t> found_counts = view<int32_t>(counts, "counts", 1);
  if (found_rows.dim(0) != batch.n) throw py::value_error("rows: one row per query is needed");
  if (found_counts.dim(0) != batch.n) throw py::value_error("counts: one per query is needed");
  for (int64_t q = 0; q < batch.n; q++) {
    if (found_counts.data[q] < 0 || found_counts.data[q] > found_rows.dim(1)) {
      throw py::value_error("counts: one is not in 0.." + std::to_string(found_rows.dim(1)));
    }
  }
  const bool squared = parse_metric(metric) == Metric::l2;
  const Isa path = path_of(isa);
  Found found(batch.n, k);
  const Output out = found.output();
  Progress progress;
  {
    py::gil_scoped_release released;
    std::vector<std::vector<Hit>> hits(static_cast<size_t>(batch.n));
    if (place_rows(batch, found_rows.data, found_counts.data, found_rows.dim(1), hits, progress)) {
      pool.run(batch.n, [&](int64_t q, int) {
        std::vector<Hit>& own = hits[static_cast<size_t>(q)];
        if (rescore_hits(batch, q, squared, path, own, progress)) put_hits(own, q, k, out);
      });
    }
  }
  found.finish(progress);
  return found;
}

uint32_t checksum(const py::object& data) {
  const View<uint8_t> bytes = view<uint8_t>(data, "data", 1);
  py::gil_scoped_release released;
  return crc32(bytes.data, static_cast<size_t>(bytes.size()));
}

}  // namespace

void bind_exact(py::module_& m) {
  m.def("exact_search", &exact, py::arg("segments"), py::arg("queries"), py::arg("k"),
        py::arg("metric"), py::arg("pool"), py::kw_only(), py::arg("live") = py::none(),
        py::arg("filters") = py::none(), py::arg("filter_of") = py::none(),
        py::arg("cancel") = py::none(), py::arg("isa") = py::none());
  m.def("rescore", &rescore, py::arg("segments"), py::arg("queries"), py::arg("rows"),
        py::arg("counts"), py::arg("k"), py::arg("metric"), py::arg("pool"),
        py::arg("isa") = py::none());
  m.def("crc32", &checksum, py::arg("data"));
}

}  // namespace ragrig
