// What the binding files share: checked views of numpy arrays, the batch from
// its arguments, the result object.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "batch.hpp"
#include "pool.hpp"

namespace ragrig {

namespace py = pybind11;

void bind_core(py::module_& m);
void bind_fast(py::module_& m);
void bind_card(py::module_& m);
void bind_contract(py::module_& m);
void bind_exact(py::module_& m);

// Keeps Python objects alive from C++; lets go of them under the GIL.
std::shared_ptr<void> keep_alive(std::vector<py::object> objects);

// A C-contiguous array of T with `dims` dimensions; raises ValueError that names it.
py::array checked(const py::handle& given, const char* name, const char* dtype, int dims);

template <typename T>
struct DtypeName;
template <> struct DtypeName<float> { static constexpr const char* value = "float32"; };
template <> struct DtypeName<double> { static constexpr const char* value = "float64"; };
template <> struct DtypeName<uint8_t> { static constexpr const char* value = "uint8"; };
template <> struct DtypeName<uint16_t> { static constexpr const char* value = "uint16"; };
template <> struct DtypeName<uint32_t> { static constexpr const char* value = "uint32"; };
template <> struct DtypeName<int32_t> { static constexpr const char* value = "int32"; };
template <> struct DtypeName<int64_t> { static constexpr const char* value = "int64"; };

// The array and its memory; hold it while the memory is read.
template <typename T>
struct View {
  py::array array;
  const T* data = nullptr;

  int64_t dim(int axis) const { return static_cast<int64_t>(array.shape(axis)); }
  int64_t size() const { return static_cast<int64_t>(array.size()); }
};

template <typename T>
View<T> view(const py::handle& given, const char* name, int dims) {
  View<T> result;
  result.array = checked(given, name, DtypeName<T>::value, dims);
  result.data = static_cast<const T*>(result.array.data());
  return result;
}

// As view, for an output; raises ValueError when it is read-only.
template <typename T>
T* writable(const View<T>& given, const char* name) {
  if (!given.array.writeable()) throw py::value_error(std::string(name) + ": it is read-only");
  return const_cast<T*>(given.data);
}

struct Found {
  py::array_t<float> distances;
  py::array_t<int64_t> rows;
  py::array_t<int32_t> counts;
  int64_t codes_scanned = 0;
  int64_t survivors = 0;
  std::string stopped;
  int corrupt_segment = -1;
  int64_t corrupt_offset = -1;

  Found(int64_t n, int64_t k);  // zeroed arrays
  Output output();
  void finish(const Progress& progress);
};

// The arguments of a search, checked. Hold it until the search is over.
struct BatchArguments {
  Batch batch;
  std::vector<py::object> held;

  void segments(const py::list& given);
  void queries(const py::handle& given, int64_t dim);                   // dim < 0: any
  void lists(const py::handle& given, int64_t nlist);
  void wanted(int64_t k);
  void refinement(int64_t refine_k, const py::handle& refine_queries);  // after segments, queries
  void bitmaps(const py::handle& live, const py::handle& filters, const py::handle& filter_of);
  void cancel(const py::handle& given);
  // Every segment holds codes of `index`.
  void require_codes(const Index& index) const;
};

}  // namespace ragrig
