// One table column of one lane: two banks of 256 entries, so that the next table loads
// while this one is read. Maps to one RAMB18 in simple dual-port mode.
//
//   we, waddr, wdata   write port; waddr is {bank, code}
//   raddr -> rdata     read port, latency 2 (memory, output register), one read per cycle
module ragrig_table_ram #(
    parameter int LW = 16
) (
    input  logic          clk,
    input  logic          we,
    input  logic [8:0]    waddr,
    input  logic [LW-1:0] wdata,
    input  logic [8:0]    raddr,
    output logic [LW-1:0] rdata
);
  (* ram_style = "block" *) logic [LW-1:0] mem[0:511];
  logic [LW-1:0] read_q;

  always_ff @(posedge clk) begin
    if (we) mem[waddr] <= wdata;
    read_q <= mem[raddr];
    rdata  <= read_q;
  end
endmodule
