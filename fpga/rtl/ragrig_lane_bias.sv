// What a code's own bias adds to its list's: a word for each of its two bytes, out of two tables.
//
//   we, bank, code, words   writes the words of a byte, low byte's table in the low half, into a
//                    bank that no code in flight reads
//   in_bank, in_bias   the bias of a code
//   in_biased        two cycles later: it has one; list_bias, three later: its list's
//   out_bias         four cycles later: min(list_bias + words, 2^SW - 1)
//
// Throughput one code per cycle.
module ragrig_lane_bias #(
    parameter int SW = 24
) (
    input  logic          clk,
    input  logic          we,
    input  logic          bank,
    input  logic [7:0]    code,
    input  logic [31:0]   words,
    input  logic          in_bank,
    input  logic [15:0]   in_bias,
    input  logic          in_biased,
    input  logic [SW-1:0] list_bias,
    output logic [SW-1:0] out_bias
);
  localparam int TOTAL = (SW > 17 ? SW : 17) + 1;
  logic [15:0]      low, high;
  logic [16:0]      both_q;
  logic [TOTAL-1:0] total;

  ragrig_table_ram #(.LW(16)) i_low (
      .clk, .we, .waddr({bank, code}), .wdata(words[15:0]), .raddr({in_bank, in_bias[7:0]}),
      .rdata(low)
  );
  ragrig_table_ram #(.LW(16)) i_high (
      .clk, .we, .waddr({bank, code}), .wdata(words[31:16]), .raddr({in_bank, in_bias[15:8]}),
      .rdata(high)
  );
  assign total = TOTAL'(both_q) + TOTAL'(list_bias);
  always_ff @(posedge clk) begin
    both_q   <= in_biased ? 17'(low) + 17'(high) : 17'd0;
    out_bias <= (total[TOTAL-1:SW] != 0) ? {SW{1'b1}} : total[SW-1:0];
  end
endmodule
