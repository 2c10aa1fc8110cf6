// Binding of the accelerator's memory format.
#include <pybind11/stl.h>

#include <optional>
#include <string>

#include "bind.hpp"
#include "card.hpp"

namespace ragrig {
namespace {

CardTable shape_of(int m, int width, int entry_bits) {
  if (entry_bits != 8 && entry_bits != 16) throw py::value_error("entry_bits: not 8 or 16");
  if (m < 1 || m > width) throw py::value_error("m: it is not in 1..width");
  return {m, width, entry_bits / 8};
}

void tables(const py::object& words, int m, int width, int entry_bits, const py::object& out) {
  const CardTable shape = shape_of(m, width, entry_bits);
  const View<uint16_t> columns = view<uint16_t>(words, "words", 2);
  const View<uint8_t> rows = view<uint8_t>(out, "out", 1);
  const int64_t count = columns.dim(0), size = int64_t{256} * m;
  if (columns.dim(1) != size) throw py::value_error("words: m * 256 are needed");
  if (rows.size() < count * shape.bytes()) throw py::value_error("out: it is too short");
  uint8_t* to = writable(rows, "out");
  py::gil_scoped_release released;
  for (int64_t t = 0; t < count; t++) {
    card_rows(columns.data + t * size, shape, to + t * shape.bytes());
  }
}

int64_t scan(const py::object& lists, int64_t nprobe, const py::object& table_bytes, int m,
             int width, int entry_bits, const py::object& code_words, const py::object& image,
             int64_t slots_per_beat, const py::object& ids, const py::object& masks,
             int64_t sum_max, int64_t k, uint32_t version, const py::object& results,
             const py::object& done, const std::optional<std::string>& isa) {
  const View<uint32_t> probed = view<uint32_t>(lists, "lists", 2);
  const View<uint8_t> rows = view<uint8_t>(table_bytes, "tables", 1);
  const View<uint8_t> codes = view<uint8_t>(image, "image", 1);
  const View<uint32_t> numbers = view<uint32_t>(ids, "ids", 1);
  const View<uint8_t> records = view<uint8_t>(results, "results", 1);
  const View<int64_t> progress = view<int64_t>(done, "done", 1);
  View<uint16_t> words;
  View<uint8_t> lanes;
  if (probed.dim(1) != CardScan::kListWords) throw py::value_error("lists: 8 words are needed");
  if (nprobe < 1 || probed.dim(0) % nprobe != 0) {
    throw py::value_error("nprobe: it does not divide the lists");
  }
  if (k < 1) throw py::value_error("k: it is less than 1");
  if (slots_per_beat < 1) throw py::value_error("slots_per_beat: it is less than 1");
  if (sum_max < 1 || sum_max >= int64_t{1} << 24) throw py::value_error("sum_max: over 24 bits");
  CardScan given;
  given.n = probed.dim(0) / nprobe;
  if (records.size() < given.n * card_result_bytes(k)) {
    throw py::value_error("results: they are too short");
  }
  if (progress.size() != 1) throw py::value_error("done: one number is needed");
  if (!code_words.is_none()) {
    words = view<uint16_t>(code_words, "code_words", 1);
    if (words.size() < given.n * 512) throw py::value_error("code_words: 512 a query are needed");
    given.code_words = words.data;
  }
  if (!masks.is_none()) {
    lanes = view<uint8_t>(masks, "masks", 1);
    given.masks = lanes.data;
    given.mask_bytes = lanes.size();
  }
  given.lists = probed.data;
  given.nprobe = nprobe;
  given.tables = rows.data;
  given.table_bytes = rows.size();
  given.shape = shape_of(m, width, entry_bits);
  given.image = codes.data;
  given.image_bytes = codes.size();
  given.slots_per_beat = slots_per_beat;
  given.ids = numbers.data;
  given.num_ids = numbers.size();
  given.sum_max = static_cast<uint32_t>(sum_max);
  given.k = k;
  given.version = version;
  given.results = writable(records, "results");
  given.done = writable(progress, "done");
  const Isa path = isa ? parse_isa(*isa) : best_isa();
  py::gil_scoped_release released;
  return scan_card(given, path);
}

}  // namespace

void bind_card(py::module_& m) {
  m.def("card_tables", &tables, py::arg("words"), py::arg("m"), py::arg("width"),
        py::arg("entry_bits"), py::arg("out"));
  m.def("card_scan", &scan, py::arg("lists"), py::arg("nprobe"), py::arg("tables"), py::arg("m"),
        py::arg("width"), py::arg("entry_bits"), py::arg("code_words").none(true),
        py::arg("image"), py::arg("slots_per_beat"), py::arg("ids"), py::arg("masks").none(true),
        py::arg("sum_max"), py::arg("k"), py::arg("version"), py::arg("results"),
        py::arg("done"), py::arg("isa") = py::none());
}

}  // namespace ragrig
