// P decode lanes side by side, with the delay lines of what they share: bias and tags.
//
//   table_*, words_we, words   see ragrig_lane and ragrig_lane_bias; they share bank and code
//   in_valid       one bit per lane: the lanes that hold a code
//   in_tag         tag of lane 0's code; lane i's is in_tag + i
//   in_bias        the list's; in_biased, in_biases: the codes' own, where BIASES is 1
//   out_valid, out_sum   of the lanes, LATENCY = 3 + log2(M) cycles later
//   out_tag        tag of lane 0's code, a cycle before its sum
//
// With BIASES M is at least 4.
module ragrig_lanes #(
    parameter int P  = 16,
    parameter int M  = 16,
    parameter int LW = 16,
    parameter int SW = 24,
    parameter int TW = 32,
    parameter bit BIASES = 1'b0
) (
    input  logic             clk,
    input  logic             rst,
    input  logic             table_we,
    input  logic             table_bank,
    input  logic [7:0]       table_code,
    input  logic [M*LW-1:0]  table_row,
    input  logic             words_we,
    input  logic [31:0]      words,
    input  logic [P-1:0]     in_valid,
    input  logic             in_bank,
    input  logic [P*M*8-1:0] in_codes,
    input  logic [SW-1:0]    in_bias,
    input  logic             in_biased,
    input  logic [P*16-1:0]  in_biases,
    input  logic [TW-1:0]    in_tag,
    output logic [P-1:0]     out_valid,
    output logic [P*SW-1:0]  out_sum,
    output logic [TW-1:0]    out_tag
);
  localparam int LEVELS = $clog2(M);
  localparam int DELAY = 2 + LEVELS;
  /* verilator lint_off UNUSEDSIGNAL */
  logic [DELAY*SW-1:0] bias_q;  // with BIASES it is taken before its end
  /* verilator lint_on UNUSEDSIGNAL */
  logic [DELAY*TW-1:0] tag_q;
  logic [P*SW-1:0]     biases;

  always_ff @(posedge clk) begin
    bias_q <= {bias_q[(DELAY-1)*SW-1:0], in_bias};
    tag_q  <= {tag_q[(DELAY-1)*TW-1:0], in_tag};
  end
  assign out_tag = tag_q[(DELAY-1)*TW+:TW];

  genvar i;
  generate
    if (BIASES) begin : g_biases
      // The four cycles of ragrig_lane_bias end where the lane adds: what it takes waits before.
      localparam int WAIT = LEVELS - 2;
      localparam int ONE = P * 16 + 1;
      logic [(WAIT+1)*ONE-1:0] line;
      logic [WAIT+1:0]         biased_q;
      assign line[ONE-1:0] = {in_bank, in_biases};
      always_ff @(posedge clk) biased_q <= {biased_q[WAIT:0], in_biased};
      if (WAIT > 0) begin : g_wait
        logic [WAIT*ONE-1:0] line_q;
        always_ff @(posedge clk) line_q <= line[WAIT*ONE-1:0];
        assign line[(WAIT+1)*ONE-1:ONE] = line_q;
      end
      for (i = 0; i < P; i = i + 1) begin : g_lane_bias
        ragrig_lane_bias #(.SW(SW)) i_bias (
            .clk, .we(words_we), .bank(table_bank), .code(table_code), .words,
            .in_bank(line[WAIT*ONE+P*16]), .in_bias(line[WAIT*ONE+i*16+:16]),
            .in_biased(biased_q[WAIT+1]), .list_bias(bias_q[LEVELS*SW+:SW]),
            .out_bias(biases[i*SW+:SW])
        );
      end
    end else begin : g_no_biases
      /* verilator lint_off UNUSEDSIGNAL */
      logic unused;
      assign unused = ^{words_we, words, in_biased, in_biases};
      /* verilator lint_on UNUSEDSIGNAL */
      assign biases = {P{bias_q[(DELAY-1)*SW+:SW]}};
    end
    for (i = 0; i < P; i = i + 1) begin : g_lane
      ragrig_lane #(.M(M), .LW(LW), .SW(SW)) i_lane (
          .clk, .rst, .table_we, .table_bank, .table_code, .table_row,
          .in_valid(in_valid[i]), .in_bank, .in_code(in_codes[i*M*8+:M*8]),
          .in_bias(biases[i*SW+:SW]), .out_valid(out_valid[i]),
          .out_sum(out_sum[i*SW+:SW])
      );
    end
  endgenerate
endmodule
