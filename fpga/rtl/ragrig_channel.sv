// One memory channel: its codes and, where BIASES is 1, the biases of its codes, over one AXI4
// read port. Biases go first, they are few; ids 0 (codes) and 1 tell the answers apart.
//
//   fetch_valid, fetch_ready, fetch_beat, fetch_beats   a list's codes; lists with biases start at
//                    whole beats of them, M / 2 of codes
//   biased         biases are read too
//   codes_base, biases_base   where they lie
//   codes_valid, codes, codes_pop     beats of codes; biases_*: of 32 biases
//   stop, quiet, bad   see ragrig_reader
//
// Throughput one beat per cycle, of codes and biases together.
module ragrig_channel #(
    parameter int M = 16,
    parameter int DEPTH = 256,
    parameter int BURST = 32,
    parameter bit BIASES = 1'b1
) (
    input  logic         clk,
    input  logic         rst,
    input  logic         stop,
    input  logic         fetch_valid,
    output logic         fetch_ready,
    input  logic [31:0]  fetch_beat,
    input  logic [31:0]  fetch_beats,
    input  logic         biased,
    input  logic [63:0]  codes_base,
    input  logic [63:0]  biases_base,
    output logic         codes_valid,
    output logic [511:0] codes,
    input  logic         codes_pop,
    output logic         biases_valid,
    output logic [511:0] biases,
    input  logic         biases_pop,
    output logic         quiet,
    output logic         bad,
    output logic         arid,
    output logic         arvalid,
    input  logic         arready,
    output logic [63:0]  araddr,
    output logic [7:0]   arlen,
    input  logic         rid,
    input  logic         rvalid,
    input  logic [511:0] rdata,
    input  logic         rbad
);
  localparam int SHIFT = $clog2(M) - 1;
  logic        code_ready, code_quiet, code_bad, code_arvalid, code_arready;
  logic [63:0] code_araddr;
  logic [7:0]  code_arlen;
  ragrig_reader #(.DEPTH(DEPTH), .BURST(BURST)) i_codes (
      .clk, .rst, .stop, .cmd_valid(fetch_valid && fetch_ready), .cmd_ready(code_ready),
      .cmd_addr(codes_base + {26'd0, fetch_beat, 6'd0}), .cmd_beats(fetch_beats),
      .valid(codes_valid), .data(codes), .pop(codes_pop), .quiet(code_quiet), .bad(code_bad),
      .arvalid(code_arvalid), .arready(code_arready), .araddr(code_araddr), .arlen(code_arlen),
      .rvalid(rvalid && !(BIASES && rid)), .rdata, .rbad
  );

  generate
    if (BIASES) begin : g_biases
      logic        bias_ready, bias_quiet, bias_bad, bias_arvalid, bias_arready, address_quiet;
      logic [63:0] bias_araddr;
      logic [7:0]  bias_arlen;
      /* verilator lint_off UNUSEDSIGNAL */
      logic [1:0]  number;
      /* verilator lint_on UNUSEDSIGNAL */
      ragrig_reader #(.DEPTH(32), .BURST(8), .BLOCK(1'b0)) i_biases (
          .clk, .rst, .stop, .cmd_valid(fetch_valid && fetch_ready && biased),
          .cmd_ready(bias_ready),
          .cmd_addr(biases_base + {26'd0, fetch_beat >> SHIFT, 6'd0}),
          .cmd_beats((fetch_beats + 32'((1 << SHIFT) - 1)) >> SHIFT), .valid(biases_valid),
          .data(biases), .pop(biases_pop), .quiet(bias_quiet), .bad(bias_bad),
          .arvalid(bias_arvalid), .arready(bias_arready), .araddr(bias_araddr),
          .arlen(bias_arlen), .rvalid(rvalid && rid), .rdata, .rbad
      );
      ragrig_arbiter #(.N(2)) i_arbiter (
          .clk, .rst, .in_valid({code_arvalid, bias_arvalid}),
          .in_ready({code_arready, bias_arready}), .in_addr({code_araddr, bias_araddr}),
          .in_len({code_arlen, bias_arlen}), .quiet(address_quiet), .arvalid, .arready,
          .arid(number), .araddr, .arlen
      );
      assign arid = !number[0];
      assign fetch_ready = code_ready && bias_ready;
      assign quiet = code_quiet && bias_quiet && address_quiet;
      assign bad = code_bad || bias_bad;
    end else begin : g_no_biases
      /* verilator lint_off UNUSEDSIGNAL */
      logic unused;
      assign unused = ^{biased, biases_base, biases_pop, rid};
      /* verilator lint_on UNUSEDSIGNAL */
      assign {arid, arvalid, araddr, arlen} = {1'b0, code_arvalid, code_araddr, code_arlen};
      assign code_arready = arready;
      assign {fetch_ready, quiet, bad} = {code_ready, code_quiet, code_bad};
      assign {biases_valid, biases} = {1'b1, 512'd0};
    end
  endgenerate
endmodule
