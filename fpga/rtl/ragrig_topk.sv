// Exact top-K of the keys {sum, tag} of P lanes, in two stages: per lane a threshold filter and
// a FIFO whose head is filtered again, then one key per cycle, chosen in turn, into a queue of
// KMAX cells that is always sorted. The threshold is the K-th key so far.
//
//   load, k          before a query's first key, while idle: results per query, 1 .. KMAX
//   in_valid, in_sum, in_tag   up to P keys per cycle
//   ready            room for the keys of MARGIN more cycles: whoever feeds looks at it MARGIN
//                    cycles or less before the key arrives
//   idle             every key that came in is in the queue or was dropped
//   drain            held while idle: hands out K entries on out_*, worst first; afterwards the
//                    queue is empty again. out_found is 0 for entries that no key filled
//   out_valid, out_ready, out_rank, out_last   out_rank counts K - 1 .. 0
//
// Latency from key to queue 5 cycles where nothing waits. Keys in descending order enter one
// per cycle; random ones P per cycle but for the first few hundred.
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
    input  logic [P*TW-1:0] in_tag,
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
  localparam int KW = KEY + 1;
  localparam int AW = $clog2(DEPTH);

  logic [KW-1:0] threshold_q;
  logic [P-1:0]  filter_q, head_valid, head_ok, grant, pop, full, waiting;
  logic [P*KEY-1:0] heads;

  // Lanes: filter, FIFO, filter.
  genvar i;
  generate
    for (i = 0; i < P; i = i + 1) begin : g_lane
      logic [KEY-1:0] key, key_q;
      logic [AW:0]    count;
      assign key = {in_sum[i*SW+:SW], in_tag[i*TW+:TW]};
      always_ff @(posedge clk) begin
        key_q <= key;
        filter_q[i] <= !rst && in_valid[i] && ({1'b0, key} < threshold_q);
      end
      ragrig_fifo #(.W(KEY), .DEPTH(DEPTH)) i_fifo (
          .clk, .rst, .push(filter_q[i]), .wdata(key_q), .pop(pop[i]),
          .valid(head_valid[i]), .rdata(heads[i*KEY+:KEY]), .count
      );
      assign head_ok[i] = head_valid[i] && ({1'b0, heads[i*KEY+:KEY]} < threshold_q);
      assign full[i] = count > (AW + 1)'(DEPTH - MARGIN);
      assign waiting[i] = (count != 0) || head_valid[i];
    end
  endgenerate
  assign pop = grant | (head_valid & ~head_ok);

  // The next lane in turn that has a key; turn_q masks the lanes whose turn is over.
  logic [P-1:0]   turn_q, later, from;
  logic [KEY-1:0] chosen;
  assign later = head_ok & turn_q;
  assign from  = (later != 0) ? later : head_ok;
  assign grant = from & (~from + 1'b1);
  integer c;
  always_comb begin
    chosen = '0;
    for (c = 0; c < P; c = c + 1) chosen = chosen | (heads[c*KEY+:KEY] & {KEY{grant[c]}});
  end

  logic           insert_q;
  logic [KEY-1:0] new_q;
  always_ff @(posedge clk) begin
    new_q <= chosen;
    if (rst) begin
      turn_q   <= {P{1'b1}};
      insert_q <= 1'b0;
    end else begin
      insert_q <= head_ok != 0;
      if (grant != 0) turn_q <= ~((grant - 1'b1) | grant);
    end
  end

  // The queue; cells below KMAX - k are pinned, so that the last one is the K-th.
  logic                   shift;
  logic [KMAX-1:0]        pinned_q;
  /* verilator lint_off UNUSEDSIGNAL */
  logic [KMAX:0]          lt;  // lt[i + 1] is cell i's; nobody asks the last one
  /* verilator lint_on UNUSEDSIGNAL */
  logic [(KMAX+1)*KW-1:0] keys;
  assign keys[KW-1:0] = {KW{1'b1}};
  assign lt[0] = 1'b0;
  generate
    for (i = 0; i < KMAX; i = i + 1) begin : g_cell
      always_ff @(posedge clk) if (load) pinned_q[i] <= (CW + 1)'(i) + (CW + 1)'(k) < (CW + 1)'(KMAX);
      ragrig_topk_cell #(.KW(KW)) i_cell (
          .clk, .rst, .pinned(pinned_q[i]), .insert(insert_q), .shift,
          .key_i({1'b0, new_q}), .left_key(keys[i*KW+:KW]),
          .left_lt(lt[i]), .lt_o(lt[i+1]), .key_o(keys[(i+1)*KW+:KW])
      );
    end
  endgenerate

  // A threshold of the cycle before is never too small, but for a drain: see settled_q.
  logic          draining_q, ready_q, settled_q;
  logic [CW-1:0] rank_q, k_q;
  assign {out_found, out_sum, out_tag} = {!keys[KMAX*KW+KW-1], keys[KMAX*KW+:KEY]};
  assign out_valid = draining_q;
  assign out_rank  = rank_q;
  assign out_last  = rank_q == 0;
  assign shift     = draining_q && out_ready;
  assign idle      = (waiting == 0) && (filter_q == 0) && !insert_q && !draining_q && settled_q;
  assign ready     = ready_q && !draining_q && settled_q;

  always_ff @(posedge clk) begin
    threshold_q <= keys[KMAX*KW+:KW];
    ready_q     <= full == 0;
    settled_q   <= !rst && !draining_q;
    if (load) k_q <= k;
    if (rst) begin
      threshold_q <= {KW{1'b1}};
      draining_q  <= 1'b0;
      rank_q      <= '0;
    end else if (draining_q) begin
      if (shift) rank_q <= rank_q - 1'b1;
      if (shift && out_last) draining_q <= 1'b0;
    end else if (drain && idle) begin
      draining_q <= 1'b1;
      rank_q     <= k_q - 1'b1;
    end
  end
endmodule
