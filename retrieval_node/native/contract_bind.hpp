// What the bindings of the numeric contract share: its arguments, checked.
#pragma once

#include <string>

#include "bind.hpp"
#include "contract_numbers.hpp"

namespace ragrig {

// Raises ValueError for widths that cannot be.
Contract contract_of(int table_bits, int sum_bits, bool integers);

template <typename T>
T* output(const py::object& given, const char* name, int64_t size, int dims) {
  const View<T> array = view<T>(given, name, dims);
  if (array.size() != size) {
    throw py::value_error(std::string(name) + ": it has " + std::to_string(array.size()) +
                          " values, not " + std::to_string(size));
  }
  return writable(array, name);
}

// Queries with their probed lists one after the other, and what is found of each.
struct FlatQueries {
  View<float> queries;     // [n, dim]
  View<int64_t> lists;
  View<int64_t> starts;    // [n + 1]
  int64_t* biases = nullptr;
  double* bases = nullptr;
  float* scales = nullptr;

  // Raises ValueError that names an argument.
  FlatQueries(const Index& index, const py::object& queries, const py::object& lists,
              const py::object& starts, const py::object& biases, const py::object& bases,
              const py::object& scales);

  int64_t n() const { return queries.dim(0); }
  const float* query(int64_t q) const { return queries.data + q * queries.dim(1); }
  int64_t first(int64_t q) const { return starts.data[q]; }
  int64_t count(int64_t q) const { return starts.data[q + 1] - starts.data[q]; }

  // Notes what was made of query q, QueryTables or QueryVectors.
  template <typename Made>
  void note(int64_t q, const Made& made) const {
    bases[q] = made.scale().base;
    scales[q] = made.scale().scale;
    for (int64_t p = 0; p < count(q); p++) biases[first(q) + p] = made.bias(p);
  }
};

}  // namespace ragrig
