// P decode lanes side by side, with the delay lines of what they share: bias and tags.
//
//   in_valid       one bit per lane: the lanes that hold a code
//   in_tag         tag of lane 0's code; lane i's is in_tag + i
//   out_valid, out_sum   of the lanes, LATENCY = 3 + log2(M) cycles later
//   out_tag        tag of lane 0's code, a cycle before its sum
module ragrig_lanes #(
    parameter int P  = 16,
    parameter int M  = 16,
    parameter int LW = 16,
    parameter int SW = 24,
    parameter int TW = 32
) (
    input  logic             clk,
    input  logic             rst,
    input  logic             table_we,
    input  logic             table_bank,
    input  logic [7:0]       table_code,
    input  logic [M*LW-1:0]  table_row,
    input  logic [P-1:0]     in_valid,
    input  logic             in_bank,
    input  logic [P*M*8-1:0] in_codes,
    input  logic [SW-1:0]    in_bias,
    input  logic [TW-1:0]    in_tag,
    output logic [P-1:0]     out_valid,
    output logic [P*SW-1:0]  out_sum,
    output logic [TW-1:0]    out_tag
);
  localparam int DELAY = 2 + $clog2(M);
  logic [DELAY*SW-1:0] bias_q;
  logic [DELAY*TW-1:0] tag_q;

  always_ff @(posedge clk) begin
    bias_q <= {bias_q[(DELAY-1)*SW-1:0], in_bias};
    tag_q  <= {tag_q[(DELAY-1)*TW-1:0], in_tag};
  end

  assign out_tag = tag_q[(DELAY-1)*TW+:TW];

  genvar i;
  generate
    for (i = 0; i < P; i = i + 1) begin : g_lane
      ragrig_lane #(.M(M), .LW(LW), .SW(SW)) i_lane (
          .clk, .rst, .table_we, .table_bank, .table_code, .table_row,
          .in_valid(in_valid[i]), .in_bank, .in_code(in_codes[i*M*8+:M*8]),
          .in_bias(bias_q[(DELAY-1)*SW+:SW]), .out_valid(out_valid[i]),
          .out_sum(out_sum[i*SW+:SW])
      );
    end
  endgenerate
endmodule
