// Cuts beats of a table into rows of M entries and writes them into the banks by turns; where
// codes have biases, the words of their bytes follow each table.
//
//   biased         each table is followed by 256 pairs of words, 16 bits each: low byte's, high's
//   valid, data, pop   beats of tables, one table after the other
//   release_i      a bank is no longer read
//   take           the scan takes the next loaded table; loaded: there is one
//   we, bank, code, row   to all lanes, registered; words_we, words: the pairs
//
// A row or a pair per cycle, or a beat per cycle where a row is longer than a beat: 256 cycles per table
// of up to 64 bytes a row, 256 more with pairs. The next table's beats wait in the reader while both banks are in use.
module ragrig_table_loader #(
    parameter int M  = 16,
    parameter int LW = 16,
    localparam int ROW = M * LW
) (
    input  logic           clk,
    input  logic           rst,
    input  logic           biased,
    input  logic           valid,
    input  logic [511:0]   data,
    output logic           pop,
    input  logic           release_i,
    input  logic           take,
    output logic           loaded,
    output logic           we,
    output logic           bank,
    output logic [7:0]     code,
    output logic [ROW-1:0] row,
    output logic           words_we,
    output logic [31:0]    words
);
  localparam int PARTS = (ROW < 512) ? 512 / ROW : ROW / 512;
  localparam int PW = (PARTS > 1) ? $clog2(PARTS) : 1;
  logic [1:0]    free_q, loaded_q;
  logic [PW-1:0] part_q;
  logic [7:0]    code_q;
  logic          bank_q, full_row, part_last, go, done, done_q, rows_done, pairs_q, table_pop;

  assign part_last = part_q == PW'(PARTS - 1);
  // A bank is taken when its first row is written.
  assign go   = valid && !pairs_q && ((code_q != 0) || (part_q != 0) || (free_q != 0));
  assign rows_done = go && full_row && part_last && (code_q == 8'hff);
  assign done = biased ? valid && pairs_q && (code_q == 8'hff) : rows_done;
  assign pop  = pairs_q ? valid && (&code_q[3:0]) : table_pop;
  assign loaded = loaded_q != 0;

  generate
    if (ROW <= 512) begin : g_short
      assign table_pop = go && part_last;
      assign full_row = 1'b1;
      always_ff @(posedge clk) row <= data[32'(part_q)*ROW+:ROW];
    end else begin : g_long
      assign table_pop = go;
      assign full_row = part_last;
      always_ff @(posedge clk) if (go) row <= {data, row[ROW-1:512]};
    end
  endgenerate

  always_ff @(posedge clk) begin
    code <= code_q;
    bank <= bank_q;
    words <= data[32'(code_q[3:0])*32+:32];
    if (rst) begin
      free_q   <= 2'd2;
      loaded_q <= 2'd0;
      part_q   <= '0;
      code_q   <= '0;
      bank_q   <= 1'b0;
      we       <= 1'b0;
      words_we <= 1'b0;
      pairs_q  <= 1'b0;
      done_q   <= 1'b0;
    end else begin
      we <= go && full_row;
      if (go) part_q <= part_last ? '0 : part_q + 1'b1;
      words_we <= valid && pairs_q;
      if ((go && full_row) || (valid && pairs_q)) code_q <= code_q + 8'd1;
      if (biased && rows_done) pairs_q <= 1'b1;
      else if (done) pairs_q <= 1'b0;
      if (done) bank_q <= !bank_q;
      done_q   <= done;
      free_q   <= free_q + 2'(release_i) - 2'(go && (code_q == 0) && (part_q == 0));
      loaded_q <= loaded_q + 2'(done_q) - 2'(take);
    end
  end
endmodule
