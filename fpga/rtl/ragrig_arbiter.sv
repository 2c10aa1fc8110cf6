// Puts the read requests of several units on one AXI4 address channel, unit 0 first; the id of
// a read is the unit's number.
//
//   in_*           requests side by side; ar*   the address channel, registered
//   quiet          no request is on the channel
module ragrig_arbiter #(
    parameter int N = 3
) (
    input  logic            clk,
    input  logic            rst,
    input  logic [N-1:0]    in_valid,
    output logic [N-1:0]    in_ready,
    input  logic [N*64-1:0] in_addr,
    input  logic [N*8-1:0]  in_len,
    output logic            quiet,
    output logic            arvalid,
    input  logic            arready,
    output logic [1:0]      arid,
    output logic [63:0]     araddr,
    output logic [7:0]      arlen
);
  logic go;
  assign go       = !arvalid || arready;
  assign in_ready = go ? (in_valid & (~in_valid + 1'b1)) : '0;
  assign quiet    = !arvalid;

  integer i;
  always_ff @(posedge clk) begin
    if (rst) arvalid <= 1'b0;
    else if (go) arvalid <= in_valid != 0;
    for (i = 0; i < N; i = i + 1)
      if (in_ready[i]) begin
        arid   <= 2'(i);
        araddr <= in_addr[i*64+:64];
        arlen  <= in_len[i*8+:8];
      end
  end
endmodule
