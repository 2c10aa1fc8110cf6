// Binding of what all modes share: Pool, Cancel, Guard, Index, Segment, Found.
#include <pybind11/stl.h>

#include <limits>
#include <optional>

#include "bind.hpp"

namespace ragrig {
namespace {

std::shared_ptr<Guard> make_guard(const py::object& file, int64_t first, int64_t block_bytes,
                                  const py::object& crcs) {
  const View<uint8_t> bytes = view<uint8_t>(file, "file", 1);
  const View<uint32_t> values = view<uint32_t>(crcs, "crcs", 1);
  return std::make_shared<Guard>(bytes.data, bytes.size(), first, block_bytes, values.data,
                                 values.size(), keep_alive({bytes.array, values.array}));
}

std::optional<int64_t> ensure(Guard& guard, int64_t start, int64_t stop) {
  int64_t bad;
  {
    py::gil_scoped_release released;
    bad = guard.ensure(start, stop);
  }
  if (bad < 0) return std::nullopt;
  return bad;
}

std::shared_ptr<Index> make_index(const std::string& metric, const py::object& centroids,
                                  const py::object& codebooks, const py::object& shift,
                                  bool residual, const std::optional<std::string>& isa) {
  const View<float> centres = view<float>(centroids, "centroids", 2);
  const View<float> books = view<float>(codebooks, "codebooks", 3);
  const View<float> origin = view<float>(shift, "shift", 1);
  if (books.dim(1) != kCodes) throw py::value_error("codebooks: 256 entries each are needed");
  if (origin.dim(0) != centres.dim(1)) throw py::value_error("shift: dim is not the centroids'");
  IndexArrays arrays;
  arrays.centroids = centres.data;
  arrays.codebooks = books.data;
  arrays.shift = origin.data;
  arrays.nlist = centres.dim(0);
  arrays.dim = centres.dim(1);
  arrays.m = books.dim(0);
  arrays.sub = books.dim(2);
  arrays.owner = keep_alive({centres.array, books.array, origin.array});
  const Isa path = isa ? parse_isa(*isa) : best_isa();
  return std::make_shared<Index>(parse_metric(metric), std::move(arrays), residual, path);
}

void read_codes(SegmentArrays& arrays, std::vector<py::object>& held, const py::object& codes,
                const py::object& bias, const py::object& bias_affine) {
  if (!codes.is_none()) {
    const View<uint8_t> bytes = view<uint8_t>(codes, "codes", 1);
    arrays.codes = bytes.data;
    arrays.code_bytes = bytes.size();
    held.push_back(bytes.array);
  }
  if (!bias.is_none()) {
    const View<uint16_t> values = view<uint16_t>(bias, "bias", 1);
    arrays.bias = values.data;
    arrays.bias_count = values.size();
    held.push_back(values.array);
  }
  if (!bias_affine.is_none()) {
    const View<float> pairs = view<float>(bias_affine, "bias_affine", 2);
    if (pairs.dim(0) != arrays.lists || pairs.dim(1) != 2)
      throw py::value_error("bias_affine: its shape is not [nlist, 2]");
    arrays.bias_affine = pairs.data;
    held.push_back(pairs.array);
  }
}

void read_vectors(SegmentArrays& arrays, std::vector<py::object>& held, const py::object& given) {
  if (given.is_none()) return;
  if (!py::isinstance<py::array>(given)) throw py::value_error("vectors: a numpy array is needed");
  arrays.half = given.attr("dtype").attr("itemsize").cast<int>() == 2;
  const py::array array = checked(given, "vectors", arrays.half ? "float16" : "float32", 2);
  if (array.shape(0) != arrays.rows) throw py::value_error("vectors: one row per id is needed");
  arrays.vectors = array.data();
  arrays.vector_dim = array.shape(1);
  held.push_back(array);
}

std::shared_ptr<Segment> make_segment(
    std::shared_ptr<Index> index, const py::object& list_offsets, const py::object& codes,
    const py::object& bias, const py::object& bias_affine, const py::object& ids,
    int64_t row_start, int64_t row_count, const py::object& vectors,
    std::shared_ptr<Guard> guard) {
  const View<int64_t> offsets = view<int64_t>(list_offsets, "list_offsets", 1);
  const View<uint32_t> numbers = view<uint32_t>(ids, "ids", 1);
  if (offsets.size() < 2) throw py::value_error("list_offsets: at least two values are needed");
  std::vector<py::object> held{offsets.array, numbers.array};
  SegmentArrays arrays;
  arrays.list_offsets = offsets.data;
  arrays.lists = offsets.size() - 1;
  arrays.ids = numbers.data;
  arrays.rows = numbers.size();
  arrays.row_start = row_start;
  arrays.row_count = row_count;
  arrays.guard = std::move(guard);
  read_codes(arrays, held, codes, bias, bias_affine);
  read_vectors(arrays, held, vectors);
  arrays.owner = keep_alive(std::move(held));
  return std::make_shared<Segment>(std::move(index), std::move(arrays));
}

}  // namespace

void bind_core(py::module_& m) {
  m.def("machine_isas", [] {
    std::vector<std::string> names;
    for (Isa isa : machine_isas()) names.emplace_back(isa_name(isa));
    return names;
  });
  py::class_<Pool, std::shared_ptr<Pool>>(m, "Pool")
      .def(py::init<int, std::vector<int>>(), py::arg("threads"),
           py::arg("cpus") = std::vector<int>{})
      .def_property_readonly("threads", &Pool::threads);
  py::class_<Cancel, std::shared_ptr<Cancel>>(m, "Cancel")
      .def(py::init([](std::optional<double> deadline_s) {
             return std::make_shared<Cancel>(
                 deadline_s.value_or(std::numeric_limits<double>::infinity()));
           }),
           py::arg("deadline_s") = py::none())
      .def("set", &Cancel::set);
  py::class_<Guard, std::shared_ptr<Guard>>(m, "Guard")
      .def(py::init(&make_guard), py::arg("file"), py::arg("first"), py::arg("block_bytes"),
           py::arg("crcs"))
      .def("ensure", &ensure, py::arg("start"), py::arg("stop"))
      .def_property_readonly("verified_blocks", &Guard::verified_blocks);
  py::class_<Index, std::shared_ptr<Index>>(m, "Index")
      .def(py::init(&make_index), py::arg("metric"), py::arg("centroids"), py::arg("codebooks"),
           py::arg("shift"), py::arg("residual") = true, py::arg("isa") = py::none())
      .def_property_readonly("isa", [](const Index& index) { return isa_name(index.isa); });
  py::class_<Segment, std::shared_ptr<Segment>>(m, "Segment")
      .def(py::init(&make_segment), py::arg("index").none(true), py::arg("list_offsets"),
           py::arg("codes"), py::arg("bias"), py::arg("bias_affine"), py::arg("ids"),
           py::arg("row_start"), py::arg("row_count"), py::arg("vectors"),
           py::arg("guard").none(true))
      .def_property_readonly("rows", &Segment::rows);
  py::class_<Found>(m, "Found")
      .def_readonly("distances", &Found::distances)
      .def_readonly("rows", &Found::rows)
      .def_readonly("counts", &Found::counts)
      .def_readonly("codes_scanned", &Found::codes_scanned)
      .def_readonly("survivors", &Found::survivors)
      .def_readonly("stopped", &Found::stopped)
      .def_readonly("corrupt_segment", &Found::corrupt_segment)
      .def_readonly("corrupt_offset", &Found::corrupt_offset);
}

}  // namespace ragrig
