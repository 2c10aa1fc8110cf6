// The extension module; its interface is _kernels.pyi.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>

#include "attend.hpp"
#include "linear.hpp"

namespace ragrig {
namespace {

namespace py = pybind11;

// An array of T with `dims` dimensions, as it lies; raises ValueError that names it.
template <typename T>
py::array checked(const py::handle& given, const char* name, int dims) {
  if (!py::isinstance<py::array>(given))
    throw py::value_error(std::string(name) + ": it is no numpy array");
  py::array array = py::reinterpret_borrow<py::array>(given);
  if (!py::isinstance<py::array_t<T>>(array) || array.ndim() != dims)
    throw py::value_error(std::string(name) + ": it must have " + std::to_string(dims) +
                          " dimensions of " + py::str(py::dtype::of<T>()).cast<std::string>());
  if (reinterpret_cast<uintptr_t>(array.data()) % alignof(T) != 0)
    throw py::value_error(std::string(name) + ": it is not aligned");
  return array;
}

template <typename T>
py::array contiguous(const py::handle& given, const char* name, int dims) {
  py::array array = checked<T>(given, name, dims);
  if ((array.flags() & py::array::c_style) == 0)
    throw py::value_error(std::string(name) + ": it is not contiguous");
  return array;
}

template <typename T>
const T* data_of(const py::array& array) {
  return static_cast<const T*>(array.data());
}

float* output(py::array& array, const char* name) {
  if (!array.writeable()) throw py::value_error(std::string(name) + ": it is read-only");
  return static_cast<float*>(array.mutable_data());
}

int64_t stride(const py::array& array, int axis, const char* name) {
  const int64_t bytes = static_cast<int64_t>(array.strides(axis));
  if (bytes % static_cast<int64_t>(sizeof(float)) != 0)
    throw py::value_error(std::string(name) + ": its strides are not whole numbers of floats");
  return bytes / static_cast<int64_t>(sizeof(float));
}

const Ops& path(const std::optional<std::string>& isa) {
  static const Isa best = machine_isas().front();
  return ops_of(isa ? parse_isa(*isa) : best);
}

void require(bool good, const std::string& problem) {
  if (!good) throw py::value_error(problem);
}

Batch make_batch(const py::object& starts, const py::object& contexts, const py::object& tables,
                 int64_t block_tokens, int64_t blocks) {
  const py::array first = contiguous<int32_t>(starts, "starts", 1);
  const py::array lengths = contiguous<int32_t>(contexts, "contexts", 1);
  const py::array table = contiguous<int32_t>(tables, "tables", 2);
  require(first.shape(0) == lengths.shape(0) + 1, "starts: one more than sequences is needed");
  require(table.shape(0) == lengths.shape(0), "tables: one row per sequence is needed");
  return Batch(data_of<int32_t>(first), data_of<int32_t>(lengths), data_of<int32_t>(table),
               lengths.shape(0), table.shape(1), block_tokens, blocks);
}

// Shapes that fit the batch and each other, and settings within their ranges.
void check(const Layer& layer, const Batch& batch, const py::array& query, const py::array& keys,
           const py::array& values, const py::array& out) {
  require(layer.kv_heads > 0 && layer.key_dim > 0 && layer.value_dim > 0, "keys: they are empty");
  require(query.shape(0) == batch.tokens(), "query: one row per token of the batch is needed");
  require(query.shape(2) == layer.key_dim, "query: its dim is not that of the keys");
  require(query.size() == 0 || layer.key_dim == 1 || query.strides(2) == static_cast<py::ssize_t>(sizeof(float)),
          "query: its last dimension is not contiguous");
  require(layer.heads > 0 && layer.heads % layer.kv_heads == 0,
          "query: its heads are no multiple of the KV heads");
  require(keys.shape(0) >= batch.slots(), "keys: fewer slots than the batch's blocks have");
  require(values.shape(0) == keys.shape(0) && values.shape(1) == layer.kv_heads,
          "values: slots and heads must be those of the keys");
  require(out.shape(0) == query.shape(0) && out.shape(1) == layer.heads &&
              out.shape(2) == layer.value_dim,
          "out: it must be [tokens, heads, value_dim]");
  require(std::isfinite(layer.scale), "scale: it is not finite");
  require(layer.softcap >= 0.0f && std::isfinite(layer.softcap), "softcap: it must be positive");
}

void attend(const Batch& batch, const py::object& query, const py::object& keys,
            const py::object& values, const py::object& out, float scale,
            const std::optional<int64_t>& window, const std::optional<float>& softcap, int threads,
            const std::optional<std::string>& isa) {
  const py::array q = checked<float>(query, "query", 3);
  const bool halves = py::isinstance<py::array_t<Half>>(keys);
  const py::array k =
      halves ? contiguous<Half>(keys, "keys", 3) : contiguous<float>(keys, "keys", 3);
  const py::array v =
      halves ? contiguous<Half>(values, "values", 3) : contiguous<float>(values, "values", 3);
  py::array to = contiguous<float>(out, "out", 3);
  require(!window || *window > 0, "window: it must be positive");
  require(!softcap || *softcap > 0.0f, "softcap: it must be positive");
  const Layer layer{data_of<float>(q),     stride(q, 0, "query"), stride(q, 1, "query"),
                    halves ? nullptr : data_of<float>(k),
                    halves ? nullptr : data_of<float>(v),
                    halves ? data_of<Half>(k) : nullptr,
                    halves ? data_of<Half>(v) : nullptr,
                    output(to, "out"),
                    q.shape(1),            k.shape(1),            k.shape(2),
                    v.shape(2),            batch.block_tokens(),  scale,
                    window.value_or(0),    softcap.value_or(0.0f)};
  check(layer, batch, q, k, v, to);
  const Ops& ops = path(isa);
  py::gil_scoped_release released;
  batch.attend(layer, ops, threads);
}

void apply_scatter(const py::object& pool, const py::object& slots, const py::object& rows,
                   int threads) {
  py::array to = contiguous<float>(pool, "pool", 3);
  const py::array places = contiguous<int64_t>(slots, "slots", 1);
  const py::array from = checked<float>(rows, "rows", 3);
  require(from.shape(0) == places.shape(0), "rows: one per slot is needed");
  require(from.shape(1) == to.shape(1) && from.shape(2) == to.shape(2),
          "rows: heads and dim must be those of the pool");
  require(from.size() == 0 || from.shape(2) == 1 || from.strides(2) == static_cast<py::ssize_t>(sizeof(float)),
          "rows: the last dimension is not contiguous");
  const int64_t* const slot = data_of<int64_t>(places);
  for (py::ssize_t t = 0; t < places.shape(0); t++)
    require(slot[t] >= 0 && slot[t] < to.shape(0),
            "slots: there is no slot " + std::to_string(slot[t]));
  const Scatter job{output(to, "pool"),    slot,          data_of<float>(from),
                    from.shape(0),         from.shape(1), from.shape(2),
                    stride(from, 0, "rows"), stride(from, 1, "rows")};
  py::gil_scoped_release released;
  scatter(job, threads);
}

void apply_linear(const py::object& x, const py::object& weight, const py::object& bias,
                  const py::object& y, int threads, const std::optional<std::string>& isa) {
  const py::array from = contiguous<float>(x, "x", 2);
  const bool halves = py::isinstance<py::array_t<Half>>(weight);
  const py::array w =
      halves ? contiguous<Half>(weight, "weight", 2) : contiguous<float>(weight, "weight", 2);
  py::array to = contiguous<float>(y, "y", 2);
  require(from.shape(1) == w.shape(1), "x: its columns are not those of the weight");
  require(to.shape(0) == from.shape(0) && to.shape(1) == w.shape(0),
          "y: it must be [tokens, out]");
  Linear job{data_of<float>(from),
             halves ? nullptr : data_of<float>(w),
             halves ? data_of<Half>(w) : nullptr,
             nullptr,
             output(to, "y"),
             from.shape(0),
             w.shape(0) == 0 ? 0 : w.shape(1),
             w.shape(0),
             nullptr};
  py::array offset;
  if (!bias.is_none()) {
    offset = contiguous<float>(bias, "bias", 1);
    require(offset.shape(0) == w.shape(0), "bias: one per row of the weight is needed");
    job.bias = data_of<float>(offset);
  }
  if (job.tokens == 0 || job.out == 0) return;
  require(job.in > 0, "x: it has no columns");
  const Ops& ops = path(isa);
  py::gil_scoped_release released;
  linear(job, ops, threads);
}

}  // namespace
}  // namespace ragrig

PYBIND11_MODULE(_kernels, m) {
  namespace py = pybind11;
  m.doc() = "Compiled attention and linear layers.";
  m.def("machine_isas", [] {
    py::list names;
    for (ragrig::Isa isa : ragrig::machine_isas()) names.append(ragrig::isa_name(isa));
    return names;
  });
  m.def("multiplies_halves", &ragrig::multiplies_halves);
  py::class_<ragrig::Batch>(m, "Batch")
      .def(py::init(&ragrig::make_batch), py::arg("starts"), py::arg("contexts"),
           py::arg("tables"), py::arg("block_tokens"), py::arg("blocks"))
      .def("attend", &ragrig::attend, py::arg("query"), py::arg("keys"), py::arg("values"),
           py::arg("out"), py::kw_only(), py::arg("scale"), py::arg("window") = py::none(),
           py::arg("softcap") = py::none(), py::arg("threads") = 1,
           py::arg("isa") = py::none());
  m.def("scatter", &ragrig::apply_scatter, py::arg("pool"), py::arg("slots"), py::arg("rows"),
        py::kw_only(), py::arg("threads") = 1);
  m.def("linear", &ragrig::apply_linear, py::arg("x"), py::arg("weight"), py::arg("bias"),
        py::arg("y"), py::kw_only(), py::arg("threads") = 1, py::arg("isa") = py::none());
}
