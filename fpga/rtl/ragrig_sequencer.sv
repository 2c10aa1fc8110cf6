// One start from its arguments to its end: checks them, counts descriptors, runs, and after an
// error waits until the buses are quiet.
//
//   start, finish, idle   see ragrig_control
//   bad_args       the build cannot do the arguments
//   num_queries, nprobe, written   arguments, and the queries that are done
//   booking        a codebook is not complete yet: it is even where there is nothing to scan
//   read_bad, write_bad   an answer of the memory was an error
//   quiet          nothing is under way on any bus
//   clear          resets the units before and after a start; load: sets k in the top-K unit
//   fetch_lists, list_beats   reads all descriptors of the start, two per beat
//   stop           no new requests; run: counters count
//   error, error_query   registers
module ragrig_sequencer (
    input  logic        clk,
    input  logic        rst,
    input  logic        start,
    output logic        finish,
    output logic        idle,
    input  logic        bad_args,
    input  logic [31:0] num_queries,
    input  logic [31:0] nprobe,
    input  logic [31:0] written,
    input  logic        booking,
    input  logic        read_bad,
    input  logic        write_bad,
    input  logic        quiet,
    output logic        clear,
    output logic        load,
    output logic        fetch_lists,
    output logic [31:0] list_beats,
    output logic        stop,
    output logic        run,
    output logic [31:0] error,
    output logic [31:0] error_query
);
  localparam logic [2:0] S_IDLE = 3'd0, S_CHECK = 3'd1, S_COUNT = 3'd2, S_LISTS = 3'd3;
  localparam logic [2:0] S_RUN = 3'd4, S_STOP = 3'd5, S_END = 3'd6;
  logic [2:0]  state_q;
  logic [31:0] factor_q, step_q, total_q;

  assign idle        = state_q == S_IDLE;
  assign finish      = state_q == S_END;
  assign clear       = (state_q == S_IDLE) || (state_q == S_CHECK);
  assign load        = state_q == S_COUNT;
  assign fetch_lists = state_q == S_LISTS;
  assign list_beats  = (total_q >> 1) + 32'(total_q[0]);
  assign stop        = state_q == S_STOP;
  assign run         = !idle && !finish;

  always_ff @(posedge clk) begin
    if (rst) begin
      state_q     <= S_IDLE;
      error       <= ragrig_regs_pkg::ERROR_NONE;
      error_query <= '0;
    end else begin
      case (state_q)
        S_IDLE: begin
          if (start) begin
            error       <= ragrig_regs_pkg::ERROR_NONE;
            error_query <= '0;
            state_q     <= S_CHECK;
          end
        end
        S_CHECK: begin
          // num_queries * nprobe, a bit per cycle: no multiplier for this alone.
          factor_q <= num_queries;
          step_q   <= nprobe;
          total_q  <= '0;
          if (bad_args) error <= ragrig_regs_pkg::ERROR_BAD_ARGUMENT;
          state_q <= bad_args ? S_END : S_COUNT;
        end
        S_COUNT: begin
          if (factor_q[0]) total_q <= total_q + step_q;
          factor_q <= factor_q >> 1;
          step_q   <= step_q << 1;
          if (factor_q == 0) state_q <= S_LISTS;
        end
        S_LISTS: state_q <= S_RUN;
        S_RUN: begin
          if (read_bad || write_bad) begin
            error       <= read_bad ? ragrig_regs_pkg::ERROR_AXI_READ
                                    : ragrig_regs_pkg::ERROR_AXI_WRITE;
            error_query <= written;
            state_q     <= S_STOP;
          end else if ((written == num_queries) && !booking) state_q <= S_STOP;
        end
        S_STOP: if (quiet) state_q <= S_END;
        default: state_q <= S_IDLE;
      endcase
    end
  end
endmodule
