// Counters of a start, and the registers that the host reads: build, error, counters.
//
//   begin_i        a start begins: the counters become 0, and hold their values after its end
//   run            cycles are counted; issue: a beat of codes from every channel is taken
//   query_end      a query's last code is scanned: it had query_codes codes, and took query_cycles
//   written, done  queries whose results are written; they count where done may change
//   stall_*        the lanes wait
//   status         registers from 0x300 on, 32 bits each (see ragrig_control)
module ragrig_status #(
    parameter int CHANNELS = 1,
    parameter int M = 16,
    parameter int LW = 16,
    parameter int SW = 24,
    parameter int KMAX = 128,
    parameter int FEATURES = 15,
    parameter int MACS = 8,
    parameter int STEPS = 4,
    localparam int STATUS = 28
) (
    input  logic                 clk,
    input  logic                 rst,
    input  logic                 begin_i,
    input  logic                 run,
    input  logic                 issue,
    input  logic                 query_end,
    input  logic [63:0]          query_codes,
    output logic [63:0]          query_cycles,
    input  logic                 done,
    input  logic [31:0]          written,
    input  logic                 stall_memory,
    input  logic                 stall_table,
    input  logic                 stall_topk,
    input  logic                 stall_result,
    input  logic [31:0]          error,
    input  logic [31:0]          error_query,
    output logic [STATUS*32-1:0] status
);
  localparam bit VECTORS = ((FEATURES >> ragrig_regs_pkg::FLAGS_VECTORS_BIT) & 1) != 0;
  logic [63:0] cycles_q, codes_q, bytes_q;
  logic [63:0] stall_memory_q, stall_table_q, stall_topk_q, stall_result_q;
  logic [31:0] done_q;
  always_ff @(posedge clk) begin
    if (rst || begin_i) begin
      {cycles_q, codes_q, bytes_q} <= '0;
      {stall_memory_q, stall_table_q, stall_topk_q, stall_result_q} <= '0;
      query_cycles <= '0;
      done_q <= '0;
    end else if (run) begin
      cycles_q <= cycles_q + 64'd1;
      query_cycles <= query_end ? 64'd0 : query_cycles + 64'd1;
      if (query_end) codes_q <= codes_q + query_codes;
      if (issue) bytes_q <= bytes_q + 64'(64 * CHANNELS);
      stall_memory_q <= stall_memory_q + 64'(stall_memory);
      stall_table_q <= stall_table_q + 64'(stall_table);
      stall_topk_q <= stall_topk_q + 64'(stall_topk);
      stall_result_q <= stall_result_q + 64'(stall_result);
      if (done) done_q <= written;
    end
  end

  // Status registers from REG_VERSION on.
  localparam int BASE = 32'(ragrig_regs_pkg::REG_VERSION);
  assign status[(32'(ragrig_regs_pkg::REG_VERSION)-BASE)*8+:32] = ragrig_regs_pkg::VERSION;
  assign status[(32'(ragrig_regs_pkg::REG_BUILD_M)-BASE)*8+:32] = 32'(M);
  assign status[(32'(ragrig_regs_pkg::REG_BUILD_CHANNELS)-BASE)*8+:32] = 32'(CHANNELS);
  assign status[(32'(ragrig_regs_pkg::REG_BUILD_LW)-BASE)*8+:32] = 32'(LW);
  assign status[(32'(ragrig_regs_pkg::REG_BUILD_SW)-BASE)*8+:32] = 32'(SW);
  assign status[(32'(ragrig_regs_pkg::REG_BUILD_KMAX)-BASE)*8+:32] = 32'(KMAX);
  assign status[(32'(ragrig_regs_pkg::REG_BUILD_FEATURES)-BASE)*8+:32] = 32'(FEATURES);
  assign status[(32'(ragrig_regs_pkg::REG_BUILD_MACS)-BASE)*8+:32] = VECTORS ? 32'(MACS) : 32'd0;
  assign status[(32'(ragrig_regs_pkg::REG_BUILD_STEPS)-BASE)*8+:32] = VECTORS ? 32'(STEPS) : 32'd0;
  assign status[(32'(ragrig_regs_pkg::REG_ERROR)-BASE)*8+:32] = error;
  assign status[(32'(ragrig_regs_pkg::REG_ERROR_QUERY)-BASE)*8+:32] = error_query;
  assign status[(32'(ragrig_regs_pkg::REG_QUERIES_DONE)-BASE)*8+:32] = done_q;
  assign status[(32'(ragrig_regs_pkg::REG_CYCLES)-BASE)*8+:64] = cycles_q;
  assign status[(32'(ragrig_regs_pkg::REG_CODES_SCANNED)-BASE)*8+:64] = codes_q;
  assign status[(32'(ragrig_regs_pkg::REG_BYTES_READ)-BASE)*8+:64] = bytes_q;
  assign status[(32'(ragrig_regs_pkg::REG_STALL_MEMORY)-BASE)*8+:64] = stall_memory_q;
  assign status[(32'(ragrig_regs_pkg::REG_STALL_TABLE)-BASE)*8+:64] = stall_table_q;
  assign status[(32'(ragrig_regs_pkg::REG_STALL_TOPK)-BASE)*8+:64] = stall_topk_q;
  assign status[(32'(ragrig_regs_pkg::REG_STALL_RESULT)-BASE)*8+:64] = stall_result_q;
  assign status[7*32+:32] = '0;  // offsets that the map leaves out
  assign status[11*32+:32] = '0;
endmodule
