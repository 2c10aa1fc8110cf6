// A block RAM of the table maker: one beat of every word of the codebook, or of its norms.
//
//   we, waddr, wdata   write port
//   re, raddr -> rdata   read port, latency 2 (memory, output register), one read per cycle
module ragrig_maker_ram #(
    parameter int W = 512,
    parameter int DEPTH = 1024,
    localparam int AW = $clog2(DEPTH)
) (
    input  logic          clk,
    input  logic          we,
    input  logic [AW-1:0] waddr,
    input  logic [W-1:0]  wdata,
    input  logic          re,
    input  logic [AW-1:0] raddr,
    output logic [W-1:0]  rdata
);
  (* ram_style = "block" *) logic [W-1:0] mem[0:DEPTH-1];
  logic [W-1:0] read_q;
  logic         re_q;

  always_ff @(posedge clk) begin
    if (we) mem[waddr] <= wdata;
    if (re) read_q <= mem[raddr];
    re_q <= re;
    if (re_q) rdata <= read_q;
  end
endmodule
