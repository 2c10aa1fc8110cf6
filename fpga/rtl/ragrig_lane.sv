// Decode lane: the sum of one code's table entries and its list's bias, saturated to SW bits.
//
//   table_we, table_bank, table_code, table_row   writes entries of code table_code for all M
//                    columns (column j at bits j*LW) into a bank that no code in flight reads
//   in_valid, in_bank, in_code   a code, byte j of which selects the entry of column j
//   in_bias          bias of the code that is LATENCY - 1 cycles further on: it is the same for
//                    all lanes, so its delay line lies outside
//   out_valid, out_sum   min(bias + sum of entries, 2^SW - 1)
//
// Latency 3 + log2(M) cycles, throughput one code per cycle, never stalls: who feeds it
// leaves room for what is in flight. M is a power of two.
module ragrig_lane #(
    parameter int M  = 16,
    parameter int LW = 16,
    parameter int SW = 24,
    localparam int LEVELS = $clog2(M),
    localparam int AW = LW + LEVELS
) (
    input  logic            clk,
    input  logic            rst,
    input  logic            table_we,
    input  logic            table_bank,
    input  logic [7:0]      table_code,
    input  logic [M*LW-1:0] table_row,
    input  logic            in_valid,
    input  logic            in_bank,
    input  logic [M*8-1:0]  in_code,
    input  logic [SW-1:0]   in_bias,
    output logic            out_valid,
    output logic [SW-1:0]   out_sum
);
  localparam int LATENCY = 3 + LEVELS;
  // One bit more than either operand, so that the saturating add cannot wrap.
  localparam int TOTAL = (AW > SW ? AW : SW) + 1;

  logic [LATENCY-1:0]         valid_q;
  // Level l takes M >> l nodes of LW + l bits; the rest is never built.
  /* verilator lint_off UNUSEDSIGNAL */
  logic [(LEVELS+1)*M*AW-1:0] nodes;
  /* verilator lint_on UNUSEDSIGNAL */
  logic [TOTAL-1:0]           total;

  genvar j, l;
  generate
    for (j = 0; j < M; j = j + 1) begin : g_column
      logic [LW-1:0] entry;
      ragrig_table_ram #(.LW(LW)) i_ram (
          .clk, .we(table_we),
          .waddr({table_bank, table_code}), .wdata(table_row[j*LW+:LW]),
          .raddr({in_bank, in_code[j*8+:8]}), .rdata(entry)
      );
      assign nodes[j*AW+:AW] = AW'(entry);
    end
    for (l = 0; l < LEVELS; l = l + 1) begin : g_level
      for (j = 0; j < M; j = j + 1) begin : g_node
        if (j < (M >> (l + 1))) begin : g_add
          logic [LW+l:0] sum_q;
          always_ff @(posedge clk)
            sum_q <= (LW+l+1)'(nodes[(l*M+2*j)*AW+:LW+l]) + (LW+l+1)'(nodes[(l*M+2*j+1)*AW+:LW+l]);
          assign nodes[((l+1)*M+j)*AW+:AW] = AW'(sum_q);
        end else begin : g_none
          assign nodes[((l+1)*M+j)*AW+:AW] = '0;
        end
      end
    end
  endgenerate

  assign total = TOTAL'(nodes[LEVELS*M*AW+:AW]) + TOTAL'(in_bias);

  always_ff @(posedge clk) begin
    if (rst) valid_q <= '0;
    else valid_q <= {valid_q[LATENCY-2:0], in_valid};
    out_sum <= (total[TOTAL-1:SW] != 0) ? {SW{1'b1}} : total[SW-1:0];
  end
  assign out_valid = valid_q[LATENCY-1];
endmodule
