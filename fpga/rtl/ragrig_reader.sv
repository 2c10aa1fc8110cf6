// Reads runs of 64-byte beats over AXI4 into a FIFO: bursts within pages of 4 KiB, as many
// outstanding as the FIFO has room for, so that R is always taken at once.
//
//   cmd_*          a run: address (a multiple of 64) and beats; up to 15 wait in line
//   stop           no further bursts; those under way come in
//   valid, data, pop   the FIFO's head
//   quiet          nothing is under way on the bus
//   bad            a beat came with SLVERR or DECERR
//
// Throughput one beat per cycle; two cycles between runs.
module ragrig_reader #(
    parameter int DEPTH = 128,
    parameter int BURST = 32,
    parameter bit BLOCK = 1'b1,
    localparam int AW = $clog2(DEPTH)
) (
    input  logic         clk,
    input  logic         rst,
    input  logic         stop,
    input  logic         cmd_valid,
    output logic         cmd_ready,
    input  logic [63:0]  cmd_addr,
    input  logic [31:0]  cmd_beats,
    output logic         valid,
    output logic [511:0] data,
    input  logic         pop,
    output logic         quiet,
    output logic         bad,
    output logic         arvalid,
    input  logic         arready,
    output logic [63:0]  araddr,
    output logic [7:0]   arlen,
    input  logic         rvalid,
    input  logic [511:0] rdata,
    input  logic         rbad
);
  localparam int CMD = 96;
  logic           line_valid, line_pop, issue;
  logic [CMD-1:0] line;
  logic [4:0]     line_count;
  logic [AW:0]    room_q, under_way_q, room_beats;
  logic [63:0]    addr_q;
  logic [31:0]    left_q, burst;
  logic [6:0]     to_page;

  ragrig_fifo #(.W(CMD), .DEPTH(16)) i_line (
      .clk, .rst, .push(cmd_valid && cmd_ready), .wdata({cmd_addr, cmd_beats}),
      .pop(line_pop), .valid(line_valid), .rdata(line), .count(line_count)
  );
  assign cmd_ready = line_count < 5'd15;
  assign line_pop  = line_valid && (left_q == 0);

  assign to_page = 7'd64 - {1'b0, addr_q[11:6]};
  always_comb begin
    burst = left_q;
    if (burst > 32'(to_page)) burst = 32'(to_page);
    if (burst > 32'(BURST)) burst = 32'(BURST);
  end
  assign room_beats = burst[AW:0];
  assign issue = (left_q != 0) && (!arvalid || arready) && (room_q >= room_beats) && !stop;

  always_ff @(posedge clk) begin
    if (rst) begin
      left_q      <= '0;
      arvalid     <= 1'b0;
      room_q      <= (AW + 1)'(DEPTH);
      under_way_q <= '0;
    end else begin
      if (line_pop) {addr_q, left_q} <= line;
      if (issue) begin
        addr_q <= addr_q + {26'd0, burst, 6'd0};
        left_q <= left_q - burst;
        araddr <= addr_q;
        arlen  <= 8'(burst - 32'd1);
      end
      arvalid     <= issue || (arvalid && !arready);
      room_q      <= room_q - (issue ? room_beats : '0) + (AW + 1)'(pop);
      under_way_q <= under_way_q + (issue ? room_beats : '0) - (AW + 1)'(rvalid);
    end
  end
  assign quiet = !arvalid && (under_way_q == 0);
  assign bad   = rvalid && rbad;

  /* verilator lint_off UNUSEDSIGNAL */
  logic [AW:0] held;  // the room is counted by bursts, not by what has come in
  /* verilator lint_on UNUSEDSIGNAL */
  ragrig_fifo #(.W(512), .DEPTH(DEPTH), .BLOCK(BLOCK)) i_data (
      .clk, .rst, .push(rvalid), .wdata(rdata), .pop, .valid, .rdata(data), .count(held)
  );
endmodule
