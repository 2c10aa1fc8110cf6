// The loop over columns that makes a table, compiled once per code path.
//
// Included inside the path's namespace, after its `#pragma GCC target`; the path defines
// Register, kWide (codewords of one), kAtOnce (of them together), Finish and part first.
// No include guard.

// Whether any high byte is set; see MakeTable.
inline bool make_table(const IntegerBook& book, const TableOrder& order, uint8_t* split) {
  Finish finish(order);
  Register any{};
  for (int64_t j = 0; j < book.m; j++) {
    finish.column(order.lows[j]);
    const int16_t* words = book.components.get() + j * book.pairs * 2 * kCodes;
    const int16_t* vector = order.vector + j * book.pairs * 2;
    for (int c = 0; c < kCodes; c += kAtOnce * kWide) {
      any |= part(words + 2 * c, book.pairs, vector, book.norms.get() + j * kCodes + c, finish,
                  split + j * kSplitColumn + c);
    }
  }
  return Finish::over_a_byte(any);
}
