// Binding of mode `fast` and of the coarse search.
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "bind.hpp"
#include "coarse.hpp"
#include "fast_search.hpp"
#include "kernels.hpp"

namespace ragrig {
namespace {

Found search(const std::shared_ptr<Index>& index, const py::list& segments,
             const py::object& queries, const py::object& lists, int64_t k,
             const std::shared_ptr<Pool>& pool, int64_t refine_k, const py::object& refine_queries,
             const py::object& live, const py::object& filters, const py::object& filter_of,
             const py::object& cancel, const std::string& order) {
  BatchArguments given;
  given.segments(segments);
  given.require_codes(*index);
  given.queries(queries, index->dim);
  given.lists(lists, index->nlist);
  given.wanted(k);
  given.refinement(refine_k, refine_queries);
  given.bitmaps(live, filters, filter_of);
  given.cancel(cancel);
  const Order chosen = parse_order(order);
  Found found(given.batch.n, k);
  const Output output = found.output();
  Progress progress;
  {
    py::gil_scoped_release released;
    fast_search(*index, given.batch, *pool, chosen, output, progress);
  }
  found.finish(progress);
  return found;
}

py::array_t<int32_t> coarse(const std::shared_ptr<Index>& index, const py::object& queries,
                            int64_t nprobe, const std::shared_ptr<Pool>& pool,
                            std::optional<float> reach) {
  const View<float> given = view<float>(queries, "queries", 2);
  if (given.dim(1) != index->dim) throw py::value_error("queries: dim is not the index's");
  if (nprobe < 1) throw py::value_error("nprobe: it is not at least 1");
  if (reach && index->metric != Metric::l2)
    throw py::value_error("reach: inner products have none");
  if (reach && !(*reach >= 1.0f && std::isfinite(*reach)))
    throw py::value_error("reach: it is not a number from 1 on");
  const float farthest = reach.value_or(std::numeric_limits<float>::infinity());
  const int64_t n = given.dim(0);
  py::array_t<int32_t> out({n, std::min(nprobe, index->nlist)});
  int32_t* const lists = out.mutable_data();
  {
    py::gil_scoped_release released;
    coarse_search(*index, given.data, n, nprobe, farthest, *pool, lists);
  }
  return out;
}

uint64_t read_memory(const py::object& data, int64_t streams, int64_t ahead_bytes) {
  const View<uint8_t> bytes = view<uint8_t>(data, "data", 1);
  if (streams != 1 && streams != 2 && streams != 4 && streams != 8)
    throw py::value_error("streams: " + std::to_string(streams) + " is not 1, 2, 4 or 8");
  if (ahead_bytes < 0) throw py::value_error("ahead_bytes: it is negative");
  py::gil_scoped_release released;
  return kernels_of(best_isa()).read(bytes.data, bytes.size(), streams, ahead_bytes);
}

}  // namespace

void bind_fast(py::module_& m) {
  auto index = py::reinterpret_borrow<py::class_<Index, std::shared_ptr<Index>>>(m.attr("Index"));
  index.def("coarse", &coarse, py::arg("queries"), py::arg("nprobe"), py::arg("pool"),
            py::kw_only(), py::arg("reach") = py::none());
  m.def("search", &search, py::arg("index"), py::arg("segments"), py::arg("queries"),
        py::arg("lists"), py::arg("k"), py::arg("pool"), py::kw_only(), py::arg("refine_k") = 0,
        py::arg("refine_queries") = py::none(), py::arg("live") = py::none(),
        py::arg("filters") = py::none(), py::arg("filter_of") = py::none(),
        py::arg("cancel") = py::none(), py::arg("order") = "auto");
  m.def("read_memory", &read_memory, py::arg("data"), py::arg("streams"),
        py::arg("ahead_bytes") = 0);
}

}  // namespace ragrig
