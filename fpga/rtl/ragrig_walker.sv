// Turns list descriptors into commands: beats to read, tables to load, masks, lists to scan.
//
//   desc_*         beats of two descriptors each, in order over all queries of the start
//   num_queries, nprobe, per_query   run-time arguments; per_query: a table per query (mode B).
//                    The last beat may hold one descriptor too many, which is not looked at
//   biased         each table is followed by its query's words, a table command of its own, a
//                    cycle before the rest: table_words, and table_number is the query's
//   fetch_*, mask_*, table_*, scan_*   commands; all move in the same cycle. A descriptor without
//                    codes becomes a scan command alone, which ends the query where it is last
//   mask_*         first beat of 512 bits and beats; where masked is set and the list has a mask
//   scan_fresh     the scan waits for the next table; scan_release: that table is done with then
//
// Throughput one descriptor per cycle. P, the codes per beat of all channels, is a power of two.
module ragrig_walker #(
    parameter int P  = 16,
    parameter int SW = 24,
    parameter int TW = 32
) (
    input  logic          clk,
    input  logic          rst,
    input  logic          stop,
    input  logic [31:0]   num_queries,
    input  logic [31:0]   nprobe,
    input  logic          per_query,
    input  logic          biased,
    input  logic          masked,
    input  logic          desc_valid,
    input  logic [511:0]  desc_data,
    output logic          desc_pop,
    output logic          fetch_valid,
    input  logic          fetch_ready,
    output logic [31:0]   fetch_beat,
    output logic [31:0]   fetch_beats,
    output logic          mask_valid,
    output logic [31:0]   mask_beat,
    output logic [31:0]   mask_beats,
    output logic          table_valid,
    input  logic          table_ready,
    output logic          table_words,
    output logic [31:0]   table_number,
    output logic          scan_valid,
    input  logic          scan_ready,
    output logic [31:0]   scan_codes,
    output logic [TW-1:0] scan_tag,
    output logic [SW-1:0] scan_bias,
    output logic          scan_masked,
    output logic [2:0]    scan_word,
    output logic          scan_bank,
    output logic          scan_fresh,
    output logic          scan_release,
    output logic          scan_last
);
  localparam int PW = $clog2(P);
  logic         half_q, bank_q, has_table_q, sent_q, may, go, some, last, fresh;
  logic [31:0]  probe_q, query_q, bias, word, bits;
  /* verilator lint_off UNUSEDSIGNAL */
  logic [255:0] desc;  // a descriptor has words that this build does not read
  /* verilator lint_on UNUSEDSIGNAL */

  assign desc  = half_q ? desc_data[511:256] : desc_data[255:0];
  assign some  = scan_codes != 0;
  assign last  = probe_q == nprobe - 32'd1;
  assign fresh = some && !(per_query && has_table_q);
  assign may   = desc_valid && !stop && fetch_ready && table_ready && scan_ready
                 && (query_q != num_queries);
  assign go    = may && (sent_q || !fresh || !biased);
  assign bias  = desc[ragrig_regs_pkg::LIST_WORD_BIAS*32+:32];

  assign fetch_valid  = go && some;
  assign fetch_beat   = desc[ragrig_regs_pkg::LIST_WORD_FIRST_BEAT*32+:32];
  assign fetch_beats  = (scan_codes >> PW) + 32'((scan_codes & 32'(P - 1)) != 0);
  assign table_valid  = may && fresh;
  assign table_words  = sent_q;
  assign table_number = sent_q ? query_q : desc[ragrig_regs_pkg::LIST_WORD_TABLE*32+:32];
  assign word         = desc[ragrig_regs_pkg::LIST_WORD_MASK_WORD*32+:32];
  assign bits         = {23'd0, word[2:0], 6'd0} + (fetch_beats << PW) + 32'd511;
  assign mask_valid   = go && scan_masked;
  assign mask_beat    = word >> 3;
  assign mask_beats   = bits >> 9;
  assign scan_masked  = masked && some && (word != 32'hffffffff);
  assign scan_word    = word[2:0];
  assign scan_valid   = go;
  assign scan_codes   = desc[ragrig_regs_pkg::LIST_WORD_CODES*32+:32];
  assign scan_tag     = TW'(desc[ragrig_regs_pkg::LIST_WORD_FIRST_TAG*32+:32]);
  assign scan_bias    = ((bias >> SW) != 0) ? {SW{1'b1}} : bias[SW-1:0];
  assign scan_bank    = bank_q ^ fresh;
  assign scan_fresh   = fresh;
  assign scan_release = per_query ? last && (has_table_q || fresh) : some;
  assign scan_last    = last;
  assign desc_pop     = go && half_q;

  always_ff @(posedge clk) begin
    if (rst) begin
      half_q      <= 1'b0;
      bank_q      <= 1'b1;
      has_table_q <= 1'b0;
      sent_q      <= 1'b0;
      probe_q     <= '0;
      query_q     <= '0;
    end else if (may && !go) sent_q <= 1'b1;
    else if (go) begin
      sent_q      <= 1'b0;
      half_q      <= !half_q;
      bank_q      <= bank_q ^ fresh;
      has_table_q <= !last && (has_table_q || fresh);
      probe_q     <= last ? 32'd0 : probe_q + 32'd1;
      query_q     <= query_q + 32'(last);
    end
  end
endmodule
