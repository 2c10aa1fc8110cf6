// Binding of mode `contract16`.
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <string>

#include "contract_bind.hpp"
#include "card.hpp"
#include "contract_checks.hpp"
#include "contract_device.hpp"
#include "contract_search.hpp"
#include "contract_tables.hpp"

namespace ragrig {
namespace {

void check_flat_lists(const Index& index, const View<int64_t>& lists,
                      const View<int64_t>& starts) {
  for (int64_t i = 0; i < lists.size(); i++) {
    if (lists.data[i] < 0 || lists.data[i] >= index.nlist) {
      throw py::value_error("lists: one is not in 0.." + std::to_string(index.nlist - 1));
    }
  }
  bool good = starts.data[0] == 0 && starts.data[starts.size() - 1] == lists.size();
  for (int64_t q = 0; q + 1 < starts.size(); q++) {
    good = good && starts.data[q] <= starts.data[q + 1];
  }
  if (!good) throw py::value_error("starts: they do not ascend from 0 to the number of lists");
}

void require_rows(const Batch& batch) {
  for (const auto& segment : batch.segments) {
    if (segment->row_start() + segment->row_count() > kMaxRow) {
      throw py::value_error("segments: row ids go beyond 2^40");
    }
  }
}

Found search(const Index& index, const py::list& segments, const py::object& queries,
             const py::object& lists, int64_t k, Pool& pool, int table_bits, int sum_bits,
             bool integers, int64_t refine_k, const py::object& refine_queries,
             const py::object& live,
             const py::object& filters, const py::object& filter_of, const py::object& cancel) {
  const Contract contract = contract_of(table_bits, sum_bits, integers);
  check_contract_index(index);
  BatchArguments given;
  given.segments(segments);
  given.queries(queries, index.dim);
  given.lists(lists, index.nlist);
  given.wanted(k);
  given.refinement(refine_k, refine_queries);
  given.bitmaps(live, filters, filter_of);
  given.cancel(cancel);
  given.require_codes(index);
  require_rows(given.batch);
  Found found(given.batch.n, k);
  const Output out = found.output();
  Progress progress;
  {
    py::gil_scoped_release released;
    contract_search(index, given.batch, contract, pool, out, progress);
  }
  found.finish(progress);
  return found;
}

// Table words of queries. With `shape` tables are rows as a card reads them, at
// `rows`, instead of words at `tables`.
struct TableOutputs {
  uint16_t* tables = nullptr;
  uint8_t* rows = nullptr;
  CardTable shape;

  // Where words of table t go, or would go: `work` where they are turned into rows.
  uint16_t* words(int64_t t, std::vector<uint16_t>& work) const {
    if (rows == nullptr) return tables + t * shape.m * kCodes;
    work.resize(static_cast<size_t>(shape.m) * kCodes);
    return work.data();
  }
  void put(int64_t t, const uint16_t* words) const {
    if (rows != nullptr) card_rows(words, shape, rows + t * shape.bytes());
  }
};

void fill_query(const Index& index, const Contract& contract, const FlatQueries& given, int64_t q,
                QueryTables& made, const TableOutputs& out) {
  const int64_t first = given.first(q), count = given.count(q);
  made.reset(index, contract, given.query(q), given.lists.data + first, count);
  for (int64_t i = 0; i < made.pieces(); i++) made.fill(i);
  made.finish();
  given.note(q, made);
  const int64_t at = table_per_list(index) ? first : q;
  std::vector<float> work;
  std::vector<uint16_t> columns;
  if (count == 0 && !table_per_list(index)) {
    uint16_t* to = out.words(at, columns);
    std::fill_n(to, index.m * kCodes, uint16_t{0});
    out.put(at, to);
  }
  for (int64_t t = 0; count > 0 && t < made.tables(); t++) {
    uint16_t* to = out.words(at + t, columns);
    made.words(t, work, to);
    out.put(at + t, to);
  }
}

void tables(const Index& index, const py::object& queries, const py::object& lists,
            const py::object& starts, int table_bits, int sum_bits, const py::object& out_tables,
            const py::object& out_biases, const py::object& out_bases,
            const py::object& out_scales, int width, bool integers) {
  const Contract contract = contract_of(table_bits, sum_bits, integers);
  check_contract_index(index);
  const FlatQueries given(index, queries, lists, starts, out_biases, out_bases, out_scales);
  const int64_t num_tables = table_per_list(index) ? given.lists.size() : given.n();
  TableOutputs out;
  out.shape = {static_cast<int>(index.m), width, table_bits / 8};
  if (width == 0) {
    out.tables = output<uint16_t>(out_tables, "tables", num_tables * index.m * kCodes, 2);
  } else {
    if (width < index.m) throw py::value_error("width: it is less than m");
    out.rows = output<uint8_t>(out_tables, "tables", num_tables * out.shape.bytes(), 1);
  }
  py::gil_scoped_release released;
  QueryTables made;
  for (int64_t q = 0; q < given.n(); q++) fill_query(index, contract, given, q, made, out);
}

int64_t device_scan(const py::object& jobs, const py::object& starts, const py::object& codes,
                    const py::object& ids, int64_t row_start, const py::object& alive,
                    const py::object& tables, int m, int64_t sum_max, const py::object& sums,
                    const py::object& rows, const py::object& counts,
                    const std::optional<std::string>& isa) {
  const View<int64_t> work = view<int64_t>(jobs, "jobs", 2);
  const View<int64_t> borders = view<int64_t>(starts, "starts", 1);
  const View<uint8_t> bytes = view<uint8_t>(codes, "codes", 1);
  const View<uint32_t> numbers = view<uint32_t>(ids, "ids", 1);
  const View<uint8_t> masks = view<uint8_t>(alive, "alive", 1);
  const View<uint16_t> words = view<uint16_t>(tables, "tables", 2);
  const View<int64_t> found = view<int64_t>(sums, "sums", 2);
  if (work.dim(1) != DeviceScan::kJobFields) throw py::value_error("jobs: 6 fields are needed");
  if (words.dim(1) != m * kCodes) throw py::value_error("tables: m * 256 entries are needed");
  if (borders.size() < 1) throw py::value_error("starts: it is empty");
  if (sum_max < 1 || sum_max >= int64_t{1} << 24) throw py::value_error("sum_max: over 24 bits");
  if (row_start < 0 || row_start + (int64_t{1} << 32) > kMaxRow) {
    throw py::value_error("row_start: row ids go beyond 2^40");
  }
  DeviceScan given;
  given.n = borders.size() - 1;
  given.k = found.dim(1);
  given.jobs = work.data;
  given.num_jobs = work.dim(0);
  given.starts = borders.data;
  given.codes = bytes.data;
  given.code_bytes = bytes.size();
  given.ids = numbers.data;
  given.num_ids = numbers.size();
  given.row_start = row_start;
  given.alive = masks.data;
  given.alive_bytes = masks.size();
  given.tables = words.data;
  given.num_tables = words.dim(0);
  given.m = m;
  given.sum_max = static_cast<uint32_t>(sum_max);
  given.sums = output<int64_t>(sums, "sums", given.n * given.k, 2);
  given.rows = output<int64_t>(rows, "rows", given.n * given.k, 2);
  given.counts = output<int32_t>(counts, "counts", given.n, 1);
  const Isa path = isa ? parse_isa(*isa) : best_isa();
  py::gil_scoped_release released;
  return scan_jobs(given, path);
}

int64_t device_masks(const py::object& jobs, const py::object& ids, int64_t row_start,
                     const py::object& live, const py::object& filters,
                     const py::object& filter_of, const py::object& out) {
  const View<int64_t> work = view<int64_t>(jobs, "jobs", 2);
  const View<uint32_t> numbers = view<uint32_t>(ids, "ids", 1);
  const View<int64_t> of = view<int64_t>(filter_of, "filter_of", 1);
  if (work.dim(1) != DeviceScan::kJobFields) throw py::value_error("jobs: 6 fields are needed");
  if (of.dim(0) != work.dim(0)) throw py::value_error("filter_of: one per job is needed");
  Bitmap rows_alive;
  View<uint8_t> live_bits, filter_bits, masks;
  if (!live.is_none()) {
    live_bits = view<uint8_t>(live, "live", 1);
    rows_alive = {live_bits.data, live_bits.size()};
  }
  int64_t count = 0, bytes = 0;
  if (!filters.is_none()) {
    filter_bits = view<uint8_t>(filters, "filters", 2);
    count = filter_bits.dim(0);
    bytes = filter_bits.dim(1);
  }
  int64_t* fields = writable(work, "jobs");
  const auto fill = [&](uint8_t* to) {
    py::gil_scoped_release released;
    return mask_jobs(fields, work.dim(0), numbers.data, numbers.size(), row_start, rows_alive,
                     filter_bits.data, count, bytes, of.data, to);
  };
  const int64_t need = fill(nullptr);
  if (out.is_none()) return need;
  masks = view<uint8_t>(out, "out", 1);
  if (masks.size() < need) throw py::value_error("out: it has fewer bytes than the masks need");
  return fill(writable(masks, "out"));
}

// The magnitude fixedpoint.MAX_ABS allows.
constexpr float kMaxAbs = 1e15f;

bool ordinary(const py::object& queries) {
  const View<float> values = view<float>(queries, "queries", 2);
  return all_ordinary(values.data, values.size(), kMaxAbs);
}

bool distinct(const py::object& lists, int64_t nlist) {
  const View<int32_t> ids = view<int32_t>(lists, "lists", 2);
  return lists_distinct(ids.data, ids.dim(0), ids.dim(1), nlist);
}

}  // namespace

Contract contract_of(int table_bits, int sum_bits, bool integers) {
  Contract contract;
  contract.table_bits = table_bits;
  contract.sum_bits = sum_bits;
  contract.integers = integers;
  contract.check();
  return contract;
}

FlatQueries::FlatQueries(const Index& index, const py::object& queries_, const py::object& lists_,
                         const py::object& starts_, const py::object& biases_,
                         const py::object& bases_, const py::object& scales_)
    : queries(view<float>(queries_, "queries", 2)), lists(view<int64_t>(lists_, "lists", 1)),
      starts(view<int64_t>(starts_, "starts", 1)) {
  if (queries.dim(1) != index.dim) throw py::value_error("queries: their dim is not the index's");
  if (starts.size() != n() + 1) throw py::value_error("starts: one more than queries is needed");
  check_flat_lists(index, lists, starts);
  biases = output<int64_t>(biases_, "biases", lists.size(), 1);
  bases = output<double>(bases_, "bases", n(), 1);
  scales = output<float>(scales_, "scales", n(), 1);
}

void bind_contract(py::module_& m) {
  m.def("ordinary", &ordinary, py::arg("queries"));
  m.def("distinct_lists", &distinct, py::arg("lists"), py::arg("nlist"));
  m.def("contract_search", &search, py::arg("index"), py::arg("segments"), py::arg("queries"),
        py::arg("lists"), py::arg("k"), py::arg("pool"), py::kw_only(),
        py::arg("table_bits") = 16, py::arg("sum_bits") = 24,
        py::arg("integers") = false, py::arg("refine_k") = 0,
        py::arg("refine_queries") = py::none(), py::arg("live") = py::none(),
        py::arg("filters") = py::none(), py::arg("filter_of") = py::none(),
        py::arg("cancel") = py::none());
  m.def("contract_tables", &tables, py::arg("index"), py::arg("queries"), py::arg("lists"),
        py::arg("starts"), py::arg("table_bits"), py::arg("sum_bits"), py::arg("tables"),
        py::arg("biases"), py::arg("bases"), py::arg("scales"), py::arg("width") = 0,
        py::arg("integers") = false);
  m.def("contract_scan", &device_scan, py::arg("jobs"), py::arg("starts"), py::arg("codes"),
        py::arg("ids"), py::arg("row_start"), py::arg("alive"), py::arg("tables"), py::arg("m"),
        py::arg("sum_max"), py::arg("sums"), py::arg("rows"), py::arg("counts"),
        py::arg("isa") = py::none());
  m.def("contract_masks", &device_masks, py::arg("jobs"), py::arg("ids"), py::arg("row_start"),
        py::arg("live").none(true), py::arg("filters").none(true), py::arg("filter_of"),
        py::arg("out").none(true));
}

}  // namespace ragrig
