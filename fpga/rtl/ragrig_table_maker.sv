// Makes tables: a filter between the table reader and the table loader that takes beats of a
// codebook and of vectors, and gives beats of table rows, as a table in memory has them.
//
//   book, steps    arguments of the start (see ragrig_maker_intake); steps is 1 .. STEPS
//   in_*           beats of records; out_*: beats of rows. Both move where valid and pop are set
//   booking        the codebook is not complete yet
//
// Parameters: M columns, LW bits of an entry (8 or 16), U components per column and cycle (a
// power of two, M * U at least 32), STEPS words per code that the codebook has room for. A word is
// [M][U] components of 16 bits; the codebook holds 256 * STEPS of them and 256 rows of norms, and
// keeps them over resets.
//
// Throughput a word per cycle: 256 * steps cycles per table, or its beats if these are more; the
// next vector comes in meanwhile. The first beat of rows is out 12 + log2 U cycles after its
// vector's last beat and the words of its rows. Nothing in the pipeline stalls: a code begins where
// out's FIFO has room for its row.
module ragrig_table_maker #(
    parameter int M = 16,
    parameter int LW = 16,
    parameter int U = 8,
    parameter int STEPS = 4,
    localparam int SB = $clog2(STEPS + 1)
) (
    input  logic          clk,
    input  logic          rst,
    input  logic          book,
    input  logic [SB-1:0] steps,
    output logic          booking,
    input  logic          in_valid,
    input  logic [511:0]  in_data,
    output logic          in_pop,
    output logic          out_valid,
    output logic [511:0]  out_data,
    input  logic          out_pop
);
  localparam int LEVELS = $clog2(U);
  localparam int LB = (M > 16) ? M / 16 : 1;
  localparam int WB = M * U * 16 / 512;
  localparam int NORM = M * 32 / LB;  // bits of a beat of norms that hold some
  localparam int ROW = M * LW;
  localparam int WIDE = (ROW < 512) ? 512 : ROW;
  localparam int PARTS = WIDE / ROW;  // rows in a beat
  localparam int BW = $clog2((LB > WB ? LB : WB) + 1);
  localparam int AW = $clog2(256 * STEPS);
  localparam int XB = $clog2(STEPS) + 1;
  localparam int STAGES = 10 + LEVELS;  // a row is complete at the last one

  // The place of a vector's word in a half of the buffer.
  function automatic logic [XB-1:0] half(input logic which, input logic [SB-1:0] step);
    half = (XB'(which) << (XB - 1)) | XB'(step);
  endfunction

  // Records.
  logic          head, rows, words, bank, full, begins, copied;
  logic [BW-1:0] beat;
  logic [7:0]    book_code;
  logic [AW-1:0] number;
  logic [SB-1:0] book_step;
  ragrig_maker_intake #(.LB(LB), .WB(WB), .STEPS(STEPS)) i_intake (
      .clk, .rst, .book, .steps, .valid(in_valid), .pop(in_pop), .release_i(copied), .head, .rows,
      .words, .beat, .booking, .code(book_code), .number, .bank, .step(book_step), .full,
      .take(begins)
  );
  logic              none_in, none_q;
  logic [4:0]        norm_shift_in, norm_shift_q, sum_shift_in, sum_shift_q;
  logic [15:0]       factor_in, factor_q;
  logic [LB*NORM-1:0] lows;
  logic [31:0]       norm_shift_word;
  assign norm_shift_word = in_data[ragrig_regs_pkg::VECTOR_WORD_NORM_SHIFT*32+:32];
  integer i;
  always_ff @(posedge clk) begin
    if (head) begin
      none_in       <= norm_shift_word[31:5] != 0;
      norm_shift_in <= norm_shift_word[4:0];
      sum_shift_in  <= in_data[ragrig_regs_pkg::VECTOR_WORD_SUM_SHIFT*32+:5];
      factor_in     <= in_data[ragrig_regs_pkg::VECTOR_WORD_FACTOR*32+:16];
    end
    for (i = 0; i < LB; i = i + 1)
      if (rows && !booking && (beat == BW'(i))) lows[i*NORM+:NORM] <= in_data[NORM-1:0];
  end

  // Words begin one after the other; the table after this one follows at once.
  logic          busy_q, bank_q, issue, claims, ends, code_end;
  logic [SB-1:0] step_q;
  logic [7:0]    code_q;
  logic [AW-1:0] at_q;
  logic [5:0]    room_q;
  logic          row_pop;
  assign claims   = (step_q == 0) && ((code_q & 8'(PARTS - 1)) == 0);
  assign issue    = busy_q && !(claims && (room_q == 0));
  assign code_end = step_q == steps - 1'b1;
  assign ends     = issue && code_end && (code_q == 8'hff);
  assign begins   = full && (!busy_q || ends);
  always_ff @(posedge clk) begin
    if (rst) begin
      busy_q <= 1'b0;
      bank_q <= 1'b1;
      step_q <= '0;
      code_q <= '0;
      at_q   <= '0;
      room_q <= 6'd32;
    end else begin
      busy_q <= begins || (busy_q && !ends);
      bank_q <= bank_q ^ begins;
      if (issue) begin
        step_q <= code_end ? '0 : step_q + 1'b1;
        code_q <= code_q + 8'(code_end);
        at_q   <= ends ? '0 : at_q + 1'b1;
      end
      room_q <= room_q - 6'(issue && claims) + 6'(row_pop);
    end
  end

  // What is known of a word on its way: stage_q[i] i cycles after it began.
  logic [LEVELS+3:0]  stage;
  logic [LEVELS+3:1]  stage_q;
  logic [STAGES-1:0]  last;
  logic [STAGES-1:1]  last_q;
  logic [LEVELS+6:0]  fresh;
  logic [LEVELS+6:1]  fresh_q;
  logic [LEVELS+3:1]  first_q;
  logic [7:0]         norm_at_q;  // code of the next word that ends one, at stage log2 U
  assign stage = {stage_q, issue};
  assign last  = {last_q, issue && code_end};
  assign fresh = {fresh_q, issue && (code_q == 0) && (step_q == 0)};
  always_ff @(posedge clk) begin
    first_q <= {first_q[LEVELS+2:1], step_q == 0};
    if (rst) begin
      stage_q   <= '0;
      last_q    <= '0;
      fresh_q   <= '0;
      norm_at_q <= '0;
    end else begin
      stage_q <= stage[LEVELS+2:0];
      last_q  <= last[STAGES-2:0];
      fresh_q <= fresh[LEVELS+5:0];
      if (last[LEVELS]) norm_at_q <= norm_at_q + 8'd1;
    end
  end

  // Words of the codebook and of the vector, by beats, both here at stage 2; and norms.
  logic [WB*512-1:0]  word, vector;
  logic [LB*NORM-1:0] norms;
  logic [XB-1:0]      vector_at_q;
  genvar b, j;
  generate
    for (b = 0; b < WB; b = b + 1) begin : g_beat
      ragrig_maker_ram #(.W(512), .DEPTH(256 * STEPS)) i_words (
          .clk, .we(words && booking && (beat == BW'(b))), .waddr(number), .wdata(in_data),
          .re(issue), .raddr(at_q), .rdata(word[b*512+:512])
      );
      (* ram_style = "distributed" *) logic [511:0] mem[0:(1<<XB)-1];
      always_ff @(posedge clk) begin
        if (words && !booking && (beat == BW'(b))) mem[half(bank, book_step)] <= in_data;
        if (stage[1]) vector[b*512+:512] <= mem[vector_at_q];
      end
    end
    for (b = 0; b < LB; b = b + 1) begin : g_norms
      ragrig_maker_ram #(.W(NORM), .DEPTH(256)) i_norms (
          .clk, .we(rows && booking && (beat == BW'(b))), .waddr(book_code),
          .wdata(in_data[NORM-1:0]), .re(last[LEVELS]), .raddr(norm_at_q),
          .rdata(norms[b*NORM+:NORM])
      );
    end
  endgenerate

  // What a vector says follows its first word, each where it is used.
  always_ff @(posedge clk) begin
    vector_at_q <= half(bank_q, step_q);
    if (fresh[1+LEVELS]) {none_q, norm_shift_q} <= {none_in, norm_shift_in};
    if (fresh[4+LEVELS]) sum_shift_q <= sum_shift_in;
    if (fresh[6+LEVELS]) factor_q <= factor_in;
  end
  assign copied = fresh[6+LEVELS];
  logic [ROW-1:0] row;
  generate
    for (j = 0; j < M; j = j + 1) begin : g_column
      ragrig_maker_column #(.LW(LW), .U(U)) i_column (
          .clk, .stage, .first(first_q[3+LEVELS]), .last(last[2+LEVELS+:7]),
          .fresh(fresh[2+LEVELS]), .word(word[j*U*16+:U*16]), .vector(vector[j*U*16+:U*16]),
          .norm(norms[j*32+:32]), .low(lows[j*32+:32]), .norm_none(none_q),
          .norm_shift(norm_shift_q), .sum_shift(sum_shift_q), .factor(factor_q),
          .entry(row[j*LW+:LW])
      );
    end
  endgenerate

  // Rows to beats.
  logic            row_valid, push;
  logic [WIDE-1:0] packed_rows, held;
  logic            held_valid;
  /* verilator lint_off UNUSEDSIGNAL */
  logic [5:0]      held_count;  // room is counted where codes begin
  /* verilator lint_on UNUSEDSIGNAL */
  assign row_valid = last[STAGES-1];
  ragrig_fifo #(.W(WIDE), .DEPTH(32)) i_rows (
      .clk, .rst, .push, .wdata(packed_rows), .pop(row_pop), .valid(held_valid), .rdata(held),
      .count(held_count)
  );
  assign out_valid = held_valid;
  generate
    if (ROW < 512) begin : g_short
      logic [511-ROW:0] rows_q;
      logic [7:0]       part_q;
      assign packed_rows = {row, rows_q};
      assign push        = row_valid && (part_q == 8'(PARTS - 1));
      assign out_data    = held;
      assign row_pop     = out_pop;
      always_ff @(posedge clk) begin
        if (row_valid) rows_q <= packed_rows[511:ROW];
        if (rst) part_q <= '0;
        else if (row_valid) part_q <= push ? '0 : part_q + 8'd1;
      end
    end else begin : g_long
      logic [7:0] part_q;
      assign packed_rows = row;
      assign push        = row_valid;
      assign out_data    = held[32'(part_q)*512+:512];
      assign row_pop     = out_pop && (part_q == 8'(ROW / 512 - 1));
      always_ff @(posedge clk) begin
        if (rst) part_q <= '0;
        else if (out_pop) part_q <= row_pop ? '0 : part_q + 8'd1;
      end
    end
  endgenerate
endmodule
