// Collects a query's results, worst first, and their ids, and writes the record: a head of 64
// bytes and beats of eight entries {id, sum}, nearest first, all ones past the last.
//
//   free           ready for a query's results
//   in_*           results out of ragrig_topk; in_last comes with rank 0
//   id_*           ids of those that were found, in the same order
//   query_cycles, query_codes   for the head, sampled with in_last
//   k, address     run-time arguments; address of the start's results
//   written        queries of this start whose records are in memory
//   stop, quiet    no further writes; nothing under way on the bus
//   bad            a write was answered SLVERR or DECERR
//
// KMAX is at least 2. k + k / 8 cycles after the last id, and the memory's answer.
module ragrig_writer #(
    parameter int KMAX = 128,
    parameter int SW = 24,
    localparam int CW = $clog2(KMAX + 1)
) (
    input  logic          clk,
    input  logic          rst,
    input  logic          stop,
    input  logic [CW-1:0] k,
    input  logic [63:0]   address,
    output logic          free,
    input  logic          in_valid,
    input  logic          in_found,
    input  logic [SW-1:0] in_sum,
    input  logic [CW-1:0] in_rank,
    input  logic          in_last,
    input  logic          id_valid,
    input  logic [31:0]   id,
    input  logic [63:0]   query_cycles,
    input  logic [63:0]   query_codes,
    output logic [31:0]   written,
    output logic          quiet,
    output logic          bad,
    output logic          awvalid,
    input  logic          awready,
    output logic [63:0]   awaddr,
    output logic          wvalid,
    input  logic          wready,
    output logic [511:0]  wdata,
    input  logic          bvalid,
    input  logic          bbad
);
  localparam logic [2:0] S_COLLECT = 3'd0, S_IDS = 3'd1, S_HEAD = 3'd2, S_ENTRY = 3'd3;
  localparam logic [2:0] S_BEAT = 3'd4, S_ANSWER = 3'd5;
  localparam int RW = $clog2(KMAX);
  (* ram_style = "distributed" *) logic [SW-1:0] sums[0:(1<<RW)-1];
  (* ram_style = "distributed" *) logic [31:0]   ids[0:(1<<RW)-1];
  logic [2:0]    state_q;
  logic [CW-1:0] count_q, ids_left_q;
  logic [CW+2:0] at_q;  // goes on to the end of k's beat
  logic [63:0]   next_q, cycles_q, codes_q;
  logic [31:0]   sum, entry_id;
  logic [7:0]    under_way_q;
  logic          send, bus_free, beat_full;

  assign free      = state_q == S_COLLECT;
  assign bus_free  = (!awvalid || awready) && (!wvalid || wready);
  assign beat_full = at_q[2:0] == 3'd7;
  assign send      = ((state_q == S_HEAD) || (state_q == S_BEAT)) && bus_free && !stop;
  assign quiet     = !awvalid && !wvalid && (under_way_q == 0);
  assign bad       = bvalid && bbad;
  assign sum       = (at_q < {3'd0, count_q}) ? 32'(sums[at_q[RW-1:0]]) : 32'hffffffff;
  assign entry_id  = (at_q < {3'd0, count_q}) ? ids[at_q[RW-1:0]] : 32'hffffffff;

  // Ids come in the order of the results: from rank count - 1 down.
  /* verilator lint_off UNUSEDSIGNAL */
  logic [CW-1:0] id_rank;
  /* verilator lint_on UNUSEDSIGNAL */
  assign id_rank = ids_left_q - 1'b1;
  always_ff @(posedge clk) begin
    if (in_valid) sums[in_rank[RW-1:0]] <= in_sum;
    if (id_valid) ids[id_rank[RW-1:0]] <= id;
  end

  logic [511:0] head;
  assign head[511:256] = '0;
  assign head[ragrig_regs_pkg::RESULT_WORD_VERSION*32+:32] = ragrig_regs_pkg::VERSION;
  assign head[ragrig_regs_pkg::RESULT_WORD_ERROR*32+:32] = ragrig_regs_pkg::ERROR_NONE;
  assign head[ragrig_regs_pkg::RESULT_WORD_COUNT*32+:32] = 32'(count_q);
  assign head[ragrig_regs_pkg::RESULT_WORD_QUERY*32+:32] = written;
  assign head[ragrig_regs_pkg::RESULT_WORD_CYCLES_LOW*32+:64] = cycles_q;
  assign head[ragrig_regs_pkg::RESULT_WORD_CODES_LOW*32+:64] = codes_q;

  logic [511:0] beat_q;
  always_ff @(posedge clk) begin
    if (state_q == S_ENTRY) beat_q <= {sum, entry_id, beat_q[511:64]};
    if (send) begin
      awaddr <= next_q;
      wdata  <= (state_q == S_HEAD) ? head : beat_q;
    end
  end

  always_ff @(posedge clk) begin
    if (rst) begin
      state_q     <= S_COLLECT;
      count_q     <= '0;
      ids_left_q  <= '0;
      written     <= '0;
      awvalid     <= 1'b0;
      wvalid      <= 1'b0;
      under_way_q <= '0;
      next_q      <= address;
      at_q        <= '0;
    end else begin
      awvalid     <= send || (awvalid && !awready);
      wvalid      <= send || (wvalid && !wready);
      under_way_q <= under_way_q + 8'(send) - 8'(bvalid);
      if (send) next_q <= next_q + 64'd64;
      if (id_valid) ids_left_q <= ids_left_q - 1'b1;
      case (state_q)
        S_COLLECT: begin
          // The first that was found has the highest rank; ids may come before the last result.
          if (in_valid && in_found && (count_q == 0)) begin
            count_q    <= in_rank + 1'b1;
            ids_left_q <= in_rank + 1'b1;
          end
          if (in_valid && in_last) begin
            cycles_q <= query_cycles;
            codes_q  <= query_codes;
            state_q  <= S_IDS;
          end
        end
        S_IDS: if (ids_left_q == 0) state_q <= S_HEAD;
        S_HEAD: begin
          at_q <= '0;
          if (send) state_q <= S_ENTRY;
        end
        S_ENTRY: begin
          at_q <= at_q + 1'b1;
          if (beat_full) state_q <= S_BEAT;
        end
        S_BEAT: if (send) state_q <= (at_q >= {3'd0, k}) ? S_ANSWER : S_ENTRY;
        default: begin
          if ((under_way_q == 0) && !stop) begin
            written <= written + 32'd1;
            count_q <= '0;
            state_q <= S_COLLECT;
          end
        end
      endcase
    end
  end
endmodule
