#include "bind.hpp"

#include <algorithm>

namespace ragrig {
namespace {

[[noreturn]] void refuse(const std::string& text) { throw py::value_error(text); }

}  // namespace

std::shared_ptr<void> keep_alive(std::vector<py::object> objects) {
  auto* held = new std::vector<py::object>(std::move(objects));
  return {held, [](std::vector<py::object>* gone) {
            py::gil_scoped_acquire gil;
            delete gone;
          }};
}

py::array checked(const py::handle& given, const char* name, const char* dtype, int dims) {
  const std::string what = std::string(name) + ": ";
  if (!py::isinstance<py::array>(given)) refuse(what + "a numpy array is needed");
  auto array = py::reinterpret_borrow<py::array>(given);
  if (!py::dtype(dtype).is(array.dtype()) && !array.dtype().equal(py::dtype(dtype)))
    refuse(what + "dtype is " + std::string(py::str(array.dtype())) + ", not " + dtype);
  if (array.ndim() != dims)
    refuse(what + std::to_string(array.ndim()) + " dimensions instead of " + std::to_string(dims));
  if (!(array.flags() & py::array::c_style)) refuse(what + "it is not C-contiguous");
  return array;
}

Found::Found(int64_t n, int64_t k)
    : distances({n, k}), rows({n, k}), counts({n}) {
  std::fill_n(distances.mutable_data(), n * k, 0.0f);
  std::fill_n(rows.mutable_data(), n * k, int64_t{0});
  std::fill_n(counts.mutable_data(), n, int32_t{0});
}

Output Found::output() {
  return {distances.mutable_data(), rows.mutable_data(), counts.mutable_data()};
}

void Found::finish(const Progress& progress) {
  codes_scanned = progress.codes_scanned.load();
  survivors = progress.survivors.load();
  stopped = stop_name(progress.reason());
  corrupt_segment = progress.corrupt_segment.load();
  corrupt_offset = progress.corrupt_offset.load();
}

void BatchArguments::segments(const py::list& given) {
  for (const py::handle& one : given)
    batch.segments.push_back(one.cast<std::shared_ptr<Segment>>());
}

void BatchArguments::queries(const py::handle& given, int64_t dim) {
  const View<float> array = view<float>(given, "queries", 2);
  batch.n = array.dim(0);
  batch.dim = array.dim(1);
  if (dim >= 0 && batch.dim != dim)
    refuse("queries: dim is " + std::to_string(batch.dim) + ", not " + std::to_string(dim));
  batch.queries = array.data;
  held.push_back(array.array);
}

void BatchArguments::lists(const py::handle& given, int64_t nlist) {
  const View<int32_t> array = view<int32_t>(given, "lists", 2);
  if (array.dim(0) != batch.n) refuse("lists: one row per query is needed");
  for (int64_t i = 0; i < array.size(); ++i)
    if (array.data[i] < -1 || array.data[i] >= nlist)
      refuse("lists: " + std::to_string(array.data[i]) + " is not in -1.." +
             std::to_string(nlist - 1));
  batch.nprobe = array.dim(1);
  batch.lists = array.data;
  held.push_back(array.array);
}

void BatchArguments::wanted(int64_t k) {
  if (k < 1 || k > (int64_t{1} << 30)) refuse("k: " + std::to_string(k) + " is not at least 1");
  batch.k = k;
}

void BatchArguments::refinement(int64_t refine_k, const py::handle& refine_queries) {
  if (refine_k < 0) refuse("refine_k: it is negative");
  if (refine_k > 0 && refine_k < batch.k) refuse("refine_k: it is below k");
  batch.refine_k = refine_k;
  batch.refine_queries = batch.queries;
  batch.refine_dim = batch.dim;
  if (!refine_queries.is_none()) {
    const View<float> array = view<float>(refine_queries, "refine_queries", 2);
    if (array.dim(0) != batch.n) refuse("refine_queries: one row per query is needed");
    batch.refine_queries = array.data;
    batch.refine_dim = array.dim(1);
    held.push_back(array.array);
  }
  if (refine_k == 0) return;
  for (const auto& segment : batch.segments) {
    if (!segment->has_vectors()) refuse("refine_k: a segment has no vectors");
    if (segment->vector_dim() != batch.refine_dim)
      refuse("refine_queries: dim is " + std::to_string(batch.refine_dim) +
             ", not the vectors' " + std::to_string(segment->vector_dim()));
  }
}

void BatchArguments::bitmaps(const py::handle& live, const py::handle& filters,
                             const py::handle& filter_of) {
  if (!live.is_none()) {
    const View<uint8_t> array = view<uint8_t>(live, "live", 1);
    batch.live = {array.data, array.size()};
    held.push_back(array.array);
  }
  if (filters.is_none() != filter_of.is_none())
    refuse("filter_of: it is given with filters or not at all");
  if (filters.is_none()) return;
  const View<uint8_t> maps = view<uint8_t>(filters, "filters", 2);
  const View<int32_t> of = view<int32_t>(filter_of, "filter_of", 1);
  if (of.dim(0) != batch.n) refuse("filter_of: one value per query is needed");
  for (int64_t i = 0; i < batch.n; ++i)
    if (of.data[i] < -1 || of.data[i] >= maps.dim(0))
      refuse("filter_of: " + std::to_string(of.data[i]) + " is not -1 or a row of filters");
  batch.filters = maps.data;
  batch.filter_count = maps.dim(0);
  batch.filter_bytes = maps.dim(1);
  batch.filter_of = of.data;
  held.push_back(maps.array);
  held.push_back(of.array);
}

void BatchArguments::cancel(const py::handle& given) {
  if (given.is_none()) return;
  batch.cancel = given.cast<Cancel*>();
  held.push_back(py::reinterpret_borrow<py::object>(given));
}

void BatchArguments::require_codes(const Index& index) const {
  for (const auto& segment : batch.segments)
    if (segment->exact() || segment->lists() != index.nlist || segment->index()->m != index.m)
      refuse("segments: one of them does not hold codes of this index");
}

}  // namespace ragrig
