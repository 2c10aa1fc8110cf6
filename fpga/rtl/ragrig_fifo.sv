// First-word fall-through FIFO over a memory with a registered read port.
//
//   push, wdata   written where it is not full; pushing into a full one is our own error
//   valid, rdata  the head; pop takes it
//   count         entries in the memory; the head register holds one more
//
// Throughput one entry per cycle; an entry pushed into an empty FIFO is at the head after
// two cycles. BLOCK chooses block RAM over distributed RAM. DEPTH is a power of two.
module ragrig_fifo #(
    parameter int W = 32,
    parameter int DEPTH = 32,
    parameter bit BLOCK = 1'b0,
    localparam int AW = $clog2(DEPTH)
) (
    input  logic         clk,
    input  logic         rst,
    input  logic         push,
    input  logic [W-1:0] wdata,
    input  logic         pop,
    output logic         valid,
    output logic [W-1:0] rdata,
    output logic [AW:0]  count
);
  logic [AW-1:0] wptr_q, rptr_q;
  logic fetch;

  assign fetch = (count != 0) && (!valid || pop);

  generate
    if (BLOCK) begin : g_block
      (* ram_style = "block" *) logic [W-1:0] mem[0:DEPTH-1];
      always_ff @(posedge clk) begin
        if (push) mem[wptr_q] <= wdata;
        if (fetch) rdata <= mem[rptr_q];
      end
    end else begin : g_distributed
      (* ram_style = "distributed" *) logic [W-1:0] mem[0:DEPTH-1];
      always_ff @(posedge clk) begin
        if (push) mem[wptr_q] <= wdata;
        if (fetch) rdata <= mem[rptr_q];
      end
    end
  endgenerate

  always_ff @(posedge clk) begin
    if (rst) begin
      wptr_q <= '0;
      rptr_q <= '0;
      count  <= '0;
      valid  <= 1'b0;
    end else begin
      if (push) wptr_q <= wptr_q + 1'b1;
      if (fetch) rptr_q <= rptr_q + 1'b1;
      count <= count + (AW + 1)'(push) - (AW + 1)'(fetch);
      valid <= fetch || (valid && !pop);
    end
  end

`ifndef SYNTHESIS
  always @(posedge clk) begin
    if (!rst && push && count == (AW + 1)'(DEPTH)) begin
      $display("%m: pushed into a full FIFO");
      $finish;
    end
    if (!rst && pop && !valid) begin
      $display("%m: popped an empty FIFO");
      $finish;
    end
  end
`endif
endmodule
