// One column of the table maker: products of U components, summed over the words of a code, and
// finished to a table entry.
//
//   stage          stage[i]: a word is i cycles old; its components are here when it is 2
//   first          stage 3 + log2 U: the word is its code's first
//   last           last[i]: stage 2 + log2 U + i: the word is its code's last
//   fresh          stage 2 + log2 U: the word is its table's first, and low is copied
//   word, vector   components of the code and of the vector, int16 each
//   norm           the code's, of its last word, at stage 2 + log2 U
//   low            the column's offset in that table
//   norm_none, norm_shift, sum_shift, factor   for the norm at stage 2 + log2 U, the sum at
//                  stage 5 + log2 U, and its product at stage 7 + log2 U
//   entry          9 + log2 U cycles after the last word:
//                  s = min((norm >> norm_shift) - dot - low >> sum_shift, 65535), s * factor >> 16,
//                  and for LW = 8 that by 256, rounded, at most 255
//
// A word per cycle; nothing moves where there is none. Sums are modulo 2^32.
module ragrig_maker_column #(
    parameter int LW = 16,
    parameter int U = 8,
    localparam int LEVELS = $clog2(U),
    localparam int STAGES = 4 + LEVELS
) (
    input  logic              clk,
    input  logic [STAGES-1:0] stage,
    input  logic              first,
    input  logic [6:0]        last,
    input  logic              fresh,
    input  logic [U*16-1:0]   word,
    input  logic [U*16-1:0]   vector,
    input  logic [31:0]       norm,
    input  logic [31:0]       low,
    input  logic              norm_none,
    input  logic [4:0]        norm_shift,
    input  logic [4:0]        sum_shift,
    input  logic [15:0]       factor,
    output logic [LW-1:0]     entry
);
  // Level l takes U >> l nodes; the rest is never built.
  /* verilator lint_off UNUSEDSIGNAL */
  logic [(LEVELS+1)*U*32-1:0] nodes;
  logic [31:0]                product_q;  // the lower half is cut off
  /* verilator lint_on UNUSEDSIGNAL */
  logic [31:0] dot_q, norm_q, low_q, above_q, shifted_q, distance_q;
  logic [15:0] sum_q;
  genvar u, l;
  generate
    for (u = 0; u < U; u = u + 1) begin : g_product
      logic signed [15:0] a, b;
      logic signed [31:0] product;
      assign a = word[u*16+:16];
      assign b = vector[u*16+:16];
      always_ff @(posedge clk) if (stage[2]) product <= a * b;
      assign nodes[u*32+:32] = product;
    end
    for (l = 0; l < LEVELS; l = l + 1) begin : g_level
      for (u = 0; u < U; u = u + 1) begin : g_node
        if (u < (U >> (l + 1))) begin : g_add
          logic [31:0] node_q;
          always_ff @(posedge clk)
            if (stage[3+l])
              node_q <= nodes[(l*U+2*u)*32+:32] + nodes[(l*U+2*u+1)*32+:32];
          assign nodes[((l+1)*U+u)*32+:32] = node_q;
        end else begin : g_none
          assign nodes[((l+1)*U+u)*32+:32] = '0;
        end
      end
    end
  endgenerate
  /* verilator lint_off UNUSEDSIGNAL */
  logic unused;
  assign unused = ^stage[1:0];
  /* verilator lint_on UNUSEDSIGNAL */

  always_ff @(posedge clk) begin
    if (stage[3+LEVELS]) dot_q <= (first ? 32'd0 : dot_q) + nodes[LEVELS*U*32+:32];
    if (fresh) low_q <= low;
    if (last[0]) norm_q <= norm_none ? 32'd0 : norm >> norm_shift;
    if (last[1]) above_q <= norm_q - low_q;
    if (last[2]) distance_q <= above_q - dot_q;
    if (last[3]) shifted_q <= distance_q >> sum_shift;
    if (last[4]) sum_q <= (shifted_q[31:16] != 0) ? 16'hffff : shifted_q[15:0];
    if (last[5]) product_q <= sum_q * factor;
  end
  generate
    if (LW == 16) begin : g_wide
      always_ff @(posedge clk) if (last[6]) entry <= product_q[31:16];
    end else begin : g_narrow
      always_ff @(posedge clk)
        if (last[6])
          entry <= (product_q[31:24] == 8'hff) ? 8'hff : product_q[31:24] + 8'(product_q[23]);
    end
  endgenerate
endmodule
