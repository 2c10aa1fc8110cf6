// Binding of the accelerator's memory format.
#include <pybind11/stl.h>

#include <optional>
#include <string>

#include "card.hpp"
#include "contract_bind.hpp"
#include "contract_tables.hpp"
#include "contract_vectors.hpp"

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

VectorShape vector_shape(int64_t m, int64_t width, int64_t macs, int64_t steps) {
  const VectorShape shape{m, width, macs, steps};
  shape.check();
  return shape;
}

// A codebook that a card read from its memory.
struct CardBook {
  VectorShape shape;
  std::shared_ptr<const IntegerBook> book;
};

CardBook read_card_book(const py::object& image, int64_t m, int64_t width, int64_t macs,
                        int64_t steps) {
  const VectorShape shape = vector_shape(m, width, macs, steps);
  const View<uint8_t> bytes = view<uint8_t>(image, "image", 1);
  if (bytes.size() < shape.book_bytes()) throw py::index_error("image: it ends in the codebook");
  return {shape, read_book(bytes.data, shape)};
}

void check_components(const Index& index, const VectorShape& shape) {
  if (shape.m != index.m) throw py::value_error("m: it is not the index's");
  if (shape.steps * shape.macs < index.sub) {
    throw py::value_error("steps: words are too few for the components of a column");
  }
}

void card_book(const Index& index, int64_t width, int64_t macs, int64_t steps,
               const py::object& out) {
  const VectorShape shape = vector_shape(index.m, width, macs, steps);
  check_components(index, shape);
  uint8_t* to = output<uint8_t>(out, "out", shape.book_bytes(), 1);
  py::gil_scoped_release released;
  put_book(index.integer_book(), shape, to);
}

void card_vectors(const Index& index, const py::object& queries, const py::object& lists,
                  const py::object& starts, int table_bits, int sum_bits, int64_t width,
                  int64_t macs, int64_t steps, int64_t stride, const py::object& out,
                  const py::object& biases, const py::object& bases, const py::object& scales) {
  const Contract contract = contract_of(table_bits, sum_bits, true);
  const VectorShape shape = vector_shape(index.m, width, macs, steps);
  check_components(index, shape);
  check_contract_index(index);
  if (stride < shape.vector_bytes()) throw py::value_error("stride: it is less than a vector");
  const FlatQueries given(index, queries, lists, starts, biases, bases, scales);
  const bool per_list = table_per_list(index);
  const int64_t count = per_list ? given.lists.size() : given.n();
  uint8_t* to = output<uint8_t>(out, "out", count * stride, 1);
  py::gil_scoped_release released;
  const IntegerBook& book = index.integer_book();
  QueryVectors made;
  for (int64_t q = 0; q < given.n(); q++) {
    const int64_t first = given.first(q);
    made.reset(index, book, contract, given.query(q), given.lists.data + first, given.count(q));
    given.note(q, made);
    uint8_t* from = to + (per_list ? first : q) * stride;
    for (int64_t v = 0; v < made.vectors(); v++) {
      put_vector(made.order(v), book.pairs, shape, from + v * stride);
    }
  }
}

int64_t scan(const py::object& lists, int64_t nprobe, const py::object& table_bytes, int m,
             int width, int entry_bits, const py::object& code_words, const py::object& image,
             int64_t slots_per_beat, const py::object& ids, const py::object& masks,
             int64_t sum_max, int64_t k, uint32_t version, const py::object& results,
             const py::object& done, const std::optional<std::string>& isa, const CardBook* book,
             int64_t vector_stride) {
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
  if (book != nullptr) {
    given.book = book->book.get();
    given.vectors = book->shape;
    given.vector_stride = vector_stride;
    if (book->shape.m != m) throw py::value_error("book: it has another m");
  }
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
        py::arg("done"), py::arg("isa") = py::none(), py::arg("book") = py::none(),
        py::arg("vector_stride") = 0);
  py::class_<CardBook>(m, "CardBook");
  m.def("read_card_book", &read_card_book, py::arg("image"), py::arg("m"), py::arg("width"),
        py::arg("macs"), py::arg("steps"));
  m.def("card_book", &card_book, py::arg("index"), py::arg("width"), py::arg("macs"),
        py::arg("steps"), py::arg("out"));
  m.def("card_vectors", &card_vectors, py::arg("index"), py::arg("queries"), py::arg("lists"),
        py::arg("starts"), py::arg("table_bits"), py::arg("sum_bits"), py::arg("width"),
        py::arg("macs"), py::arg("steps"), py::arg("stride"), py::arg("out"), py::arg("biases"),
        py::arg("bases"), py::arg("scales"));
}

}  // namespace ragrig
