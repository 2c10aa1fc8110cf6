// Scans list after list: one beat of every channel per cycle into the lanes, and at a query's
// end the results out of the top-K unit.
//
//   cmd_*          scan commands, see ragrig_walker
//   table_loaded, table_take, table_release   see ragrig_table_loader
//   beats_valid    every channel has a beat, and what its lanes need beside; issue takes one
//                    of each. mask: lanes of the next beat that may hold a code
//   list_start, last_beat   a list with codes begins; the next beat is its last
//   lane_valid, tag, bias, bank   what the lanes see with it
//   topk_ready, topk_idle, drain, drain_last   see ragrig_topk
//   writer_free    a query's results may go out; query_end: its last one went
//   query_codes    codes of its descriptors
//   stall_*        a cycle lost, and to what
//
// One cycle between lists, and about 20 + k between queries.
module ragrig_scan_control #(
    parameter int P  = 16,
    parameter int SW = 24,
    parameter int TW = 32,
    parameter int FLUSH = 12
) (
    input  logic          clk,
    input  logic          rst,
    input  logic          cmd_valid,
    output logic          cmd_pop,
    input  logic [31:0]   cmd_codes,
    input  logic [TW-1:0] cmd_tag,
    input  logic [SW-1:0] cmd_bias,
    input  logic          cmd_bank,
    input  logic          cmd_fresh,
    input  logic          cmd_release,
    input  logic          cmd_last,
    input  logic          table_loaded,
    output logic          table_take,
    output logic          table_release,
    output logic          list_start,
    output logic          last_beat,
    input  logic          beats_valid,
    input  logic [P-1:0]  mask,
    output logic          issue,
    output logic [P-1:0]  lane_valid,
    output logic [TW-1:0] tag,
    output logic [SW-1:0] bias,
    output logic          bank,
    input  logic          topk_ready,
    input  logic          topk_idle,
    output logic          drain,
    input  logic          drain_last,
    input  logic          writer_free,
    output logic          query_end,
    output logic [63:0]   query_codes,
    output logic          stall_memory,
    output logic          stall_table,
    output logic          stall_topk,
    output logic          stall_result
);
  localparam logic [1:0] S_NEXT = 2'd0, S_SCAN = 2'd1, S_FLUSH = 2'd2, S_DRAIN = 2'd3;
  logic [1:0]  state_q;
  logic [31:0] left_q;
  logic        release_q, last_q;
  logic [7:0]  flush_q;

  assign cmd_pop    = (state_q == S_NEXT) && cmd_valid && (!cmd_fresh || table_loaded);
  assign table_take = cmd_pop && cmd_fresh;
  assign issue      = (state_q == S_SCAN) && beats_valid && topk_ready;
  assign last_beat  = left_q <= 32'(P);
  assign list_start = cmd_pop && (cmd_codes != 0);

  genvar i;
  generate
    for (i = 0; i < P; i = i + 1) begin : g_lane
      assign lane_valid[i] = issue && mask[i] && (left_q > 32'(i));
    end
  endgenerate

  assign drain        = (state_q == S_DRAIN) && writer_free;
  assign query_end    = (state_q == S_DRAIN) && drain_last;
  assign stall_table  = (state_q == S_NEXT) && cmd_valid && cmd_fresh && !table_loaded;
  assign stall_memory = (state_q == S_SCAN) && !beats_valid;
  assign stall_topk   = ((state_q == S_SCAN) && beats_valid && !topk_ready)
                        || ((state_q == S_FLUSH) && (flush_q == 0) && !topk_idle);
  assign stall_result = (state_q == S_DRAIN) && !writer_free;

  always_ff @(posedge clk) begin
    table_release <= 1'b0;
    if (rst) begin
      state_q     <= S_NEXT;
      query_codes <= '0;
      flush_q     <= '0;
    end else begin
      case (state_q)
        S_NEXT: begin
          if (cmd_pop) begin
            {tag, bias, bank} <= {cmd_tag, cmd_bias, cmd_bank};
            left_q      <= cmd_codes;
            release_q   <= cmd_release;
            last_q      <= cmd_last;
            query_codes <= query_codes + 64'(cmd_codes);
            flush_q     <= 8'(FLUSH);
            if (cmd_codes != 0) state_q <= S_SCAN;
            else if (cmd_last) state_q <= S_FLUSH;
            if (cmd_codes == 0) table_release <= cmd_release;
          end
        end
        S_SCAN: begin
          if (issue) begin
            left_q <= left_q - 32'(P);
            tag    <= tag + TW'(P);
            if (last_beat) begin
              table_release <= release_q;
              state_q       <= last_q ? S_FLUSH : S_NEXT;
            end
          end
        end
        S_FLUSH: begin
          if (flush_q != 0) flush_q <= flush_q - 8'd1;
          else if (topk_idle) state_q <= S_DRAIN;
        end
        default: begin
          if (query_end) begin
            state_q     <= S_NEXT;
            query_codes <= '0;
          end
        end
      endcase
    end
  end
endmodule
