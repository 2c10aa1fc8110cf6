// Exact top-K of the keys {sum, tag} of P lanes, in two stages: per lane a threshold filter and
// a FIFO whose head is filtered again, then one key per cycle, chosen in turn, into a queue of
// KMAX cells that is always sorted. The threshold is the K-th key so far.
//
//   load, k          before a query's first key, while idle: results per query, 1 .. KMAX
//   in_tag           tag of lane 0's key, lane i's is in_tag + i; a cycle before
//   in_valid, in_sum   up to P keys per cycle
//   ready            room for the keys of MARGIN more cycles: whoever feeds looks at it MARGIN
//                    cycles or less before the key arrives
//   idle             every key that came in is in the queue or was dropped
//   drain            held while idle: hands out K entries on out_*, worst first; afterwards the
//                    queue is empty again. out_found is 0 for entries that no key filled
//   out_valid, out_ready, out_rank, out_last   out_rank counts K - 1 .. 0
//
// Latency from key to queue 6 cycles where nothing waits. Keys in descending order enter one
// per cycle; random ones P per cycle but for the first few hundred. Equal sums take the queue
// more cycles, see ragrig_topk_queue; those at the threshold with larger tags take none.
module ragrig_topk #(
    parameter int P = 16,
    parameter int KMAX = 128,
    parameter int SW = 24,
    parameter int TW = 32,
    parameter int DEPTH = 32,
    parameter int MARGIN = 12,
    localparam int CW = $clog2(KMAX + 1)
) (
    input  logic            clk,
    input  logic            rst,
    input  logic            load,
    input  logic [CW-1:0]   k,
    input  logic [P-1:0]    in_valid,
    input  logic [P*SW-1:0] in_sum,
    input  logic [TW-1:0]   in_tag,
    output logic            ready,
    output logic            idle,
    input  logic            drain,
    output logic            out_valid,
    input  logic            out_ready,
    output logic            out_found,
    output logic [SW-1:0]   out_sum,
    output logic [TW-1:0]   out_tag,
    output logic [CW-1:0]   out_rank,
    output logic            out_last
);
  localparam int KEY = SW + TW;
  localparam int AW = $clog2(DEPTH);
  localparam int PW = (P > 1) ? $clog2(P) : 1;

  logic [KEY:0]  threshold;
  logic [P-1:0]  filter_q, below_q, head_valid, head_ok, grant, pop, full, waiting;
  logic [P*KEY-1:0] heads;  // with the tag of lane 0

  // Lanes whose tag is below the threshold's, and its sum: a cycle before the keys.
  logic [SW:0]   limit_q;
  logic [TW:0]   apart;
  logic [TW-1:0] tag_q, base_q;
  assign apart = {1'b0, threshold[TW-1:0]} - {1'b0, in_tag};
  always_ff @(posedge clk) begin
    limit_q <= threshold[KEY:TW];
    {base_q, tag_q} <= {tag_q, in_tag};
  end

  // Lanes: filter, FIFO, filter by the sum alone.
  genvar i;
  generate
    for (i = 0; i < P; i = i + 1) begin : g_lane
      logic [SW-1:0] sum, sum_q;
      logic [AW:0]   count;
      assign sum = in_sum[i*SW+:SW];
      always_ff @(posedge clk) begin
        below_q[i] <= !apart[TW] && (apart[TW-1:0] > TW'(i));
        sum_q <= sum;
        filter_q[i] <= !rst && in_valid[i] && ({1'b0, sum, !below_q[i]} < {limit_q, 1'b1});
      end
      ragrig_fifo #(.W(KEY), .DEPTH(DEPTH)) i_fifo (
          .clk, .rst, .push(filter_q[i]), .wdata({sum_q, base_q}), .pop(pop[i]),
          .valid(head_valid[i]), .rdata(heads[i*KEY+:KEY]), .count
      );
      assign head_ok[i] = head_valid[i] && ({1'b0, heads[i*KEY+TW+:SW]} <= threshold[KEY:TW]);
      assign full[i] = count > (AW + 1)'(DEPTH - MARGIN);
      assign waiting[i] = (count != 0) || head_valid[i];
    end
  endgenerate
  assign pop = grant | (head_valid & ~head_ok);

  // The next lane in turn that has a key; turn_q masks the lanes whose turn is over.
  logic           taking;
  logic [P-1:0]   turn_q, later, from, first;
  logic [KEY-1:0] chosen;
  logic [PW-1:0]  lane;
  assign later = head_ok & turn_q;
  assign from  = (later != 0) ? later : head_ok;
  assign first = from & (~from + 1'b1);
  assign grant = first & {P{taking}};
  integer c;
  always_comb begin
    chosen = '0;
    lane = '0;
    for (c = 0; c < P; c = c + 1) begin
      chosen = chosen | (heads[c*KEY+:KEY] & {KEY{first[c]}});
      lane = lane | (PW'(c) & {PW{first[c]}});
    end
  end

  logic           pick_q;
  logic [KEY-1:0] picked_q;
  logic [PW-1:0]  lane_q;
  always_ff @(posedge clk) begin
    if (taking) {picked_q, lane_q} <= {chosen, lane};
    if (rst) begin
      turn_q <= {P{1'b1}};
      pick_q <= 1'b0;
    end else if (taking) begin
      pick_q <= head_ok != 0;
      if (first != 0) turn_q <= ~((first - 1'b1) | first);
    end
  end

  logic busy, shift, last_empty;
  ragrig_topk_queue #(.KMAX(KMAX), .SW(SW), .TW(TW)) i_queue (
      .clk, .rst, .load, .k, .in_valid(pick_q), .in_sum(picked_q[KEY-1:TW]),
      .in_tag(picked_q[TW-1:0] + TW'(lane_q)), .in_ready(taking), .threshold, .busy, .shift,
      .last_empty, .last_sum(out_sum), .last_tag(out_tag)
  );

  // A threshold of the cycle before is never too small, but for a drain: see settled_q.
  logic          draining_q, ready_q;
  logic [1:0]    settled_q;
  logic [CW-1:0] rank_q, k_q;
  assign out_found = !last_empty;
  assign out_valid = draining_q;
  assign out_rank  = rank_q;
  assign out_last  = rank_q == 0;
  assign shift     = draining_q && out_ready;
  assign idle      = (waiting == 0) && (filter_q == 0) && !pick_q && !busy && !draining_q && settled_q[1];
  assign ready     = ready_q && !draining_q && settled_q[1];

  always_ff @(posedge clk) begin
    ready_q   <= full == 0;
    settled_q <= {settled_q[0], 1'b1} & {2{!rst && !draining_q}};
    if (load) k_q <= k;
    if (rst) begin
      draining_q <= 1'b0;
      rank_q     <= '0;
    end else if (draining_q) begin
      if (shift) rank_q <= rank_q - 1'b1;
      if (shift && out_last) draining_q <= 1'b0;
    end else if (drain && idle) begin
      draining_q <= 1'b1;
      rank_q     <= k_q - 1'b1;
    end
  end
endmodule
