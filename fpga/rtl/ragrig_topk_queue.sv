// The K smallest keys {sum, tag} that came in, always sorted. Cells hold and compare sums;
// tags lie in a memory, and a cell holds the number of its tag's slot.
//
//   load, k        before a query's first key, while not busy: keys kept, 1 .. KMAX
//   in_valid, in_sum, in_tag, in_ready   a key; one that cannot stay is dropped
//   threshold      {empty, sum, tag} of the K-th key, at most a few keys late: never too small
//   busy           a key is on its way into a cell
//   shift, last_*  the worst entry, and hands it out; K times empty the queue
//
// A key per cycle. A new sum goes behind those that are not larger. Where one of them is equal,
// tags decide, in three cycles for each place that the key moves forward and three more: the
// key is held against its left neighbour (FIRST, later LOOK: whose slot; READ: whose tag is
// smaller; STEP: change places). One place behind the last cell is marked like a cell, so that a
// key equal to the last sum displaces that entry, or nothing, by the same rule.
module ragrig_topk_queue #(
    parameter int KMAX = 128,
    parameter int SW = 24,
    parameter int TW = 32,
    localparam int CW = $clog2(KMAX + 1),
    localparam int AW = $clog2(KMAX + 1)
) (
    input  logic             clk,
    input  logic             rst,
    input  logic             load,
    input  logic [CW-1:0]    k,
    input  logic             in_valid,
    input  logic [SW-1:0]    in_sum,
    input  logic [TW-1:0]    in_tag,
    output logic             in_ready,
    output logic [SW+TW:0]   threshold,
    output logic             busy,
    input  logic             shift,
    output logic             last_empty,
    output logic [SW-1:0]    last_sum,
    output logic [TW-1:0]    last_tag
);
  localparam logic [2:0] S_PLAIN = 3'd0, S_FIRST = 3'd1, S_READ = 3'd2, S_STEP = 3'd3, S_LOOK = 3'd4;
  logic [2:0]    state_q;
  logic          insert_q, held_q, insert, step, less_q, equal_q, end_mark_q;
  logic [SW-1:0] sum_q, old_sum_q;
  logic [TW-1:0] tag_q, old_tag_q;
  logic [AW-1:0] slot_q, old_slot_q, left_slot_q, left_slot;

  // Cells; entry 0 of what they say to the right belongs to the queue's start. It takes the slot
  // that the end hands out.
  logic [KMAX-1:0]        pinned_q, eq;
  logic [KMAX:0]          lt, mark, empties;
  logic [(KMAX+1)*SW-1:0] sums;
  logic [KMAX*AW-1:0]     slots, left_slots;
  logic [AW-1:0]          last_slot;
  assign lt[0] = 1'b0;
  assign empties[0] = 1'b1;
  assign sums[SW-1:0] = {SW{1'b1}};
  assign last_slot = slots[(KMAX-1)*AW+:AW];
  assign left_slots = (KMAX * AW)'({slots, last_slot});
  assign mark[KMAX] = end_mark_q;
  genvar i;
  generate
    for (i = 0; i < KMAX; i = i + 1) begin : g_cell
      always_ff @(posedge clk) if (load) pinned_q[i] <= (CW + 1)'(i) + (CW + 1)'(k) < (CW + 1)'(KMAX);
      ragrig_topk_cell #(.SW(SW), .AW(AW), .SLOT(i)) i_cell (
          .clk, .rst, .pinned(pinned_q[i]), .insert, .shift, .step, .sum_i(sum_q),
          .slot_i(slot_q), .left_empty(empties[i]), .left_sum(sums[i*SW+:SW]),
          .left_slot(left_slots[i*AW+:AW]), .left_lt(lt[i]), .right_mark(mark[i+1]), .lt_o(lt[i+1]),
          .eq_o(eq[i]), .mark_o(mark[i]), .empty_o(empties[i+1]), .sum_o(sums[(i+1)*SW+:SW]),
          .slot_o(slots[i*AW+:AW])
      );
    end
  endgenerate

  // The slot of the marked entry's left neighbour, and whether its sum is the same.
  logic   left_equal;
  integer c;
  always_comb begin
    left_slot = '0;
    left_equal = 1'b0;
    for (c = 0; c < KMAX; c = c + 1) begin
      left_slot = left_slot | (slots[c*AW+:AW] & {AW{mark[c+1]}});
      left_equal = left_equal || (eq[c] && mark[c+1]);
    end
  end

  (* ram_style = "distributed" *) logic [TW-1:0] tags[0:(1<<AW)-1];
  logic [AW-1:0] read_slot;
  assign read_slot = (state_q == S_PLAIN) ? last_slot : left_slot_q;
  assign last_tag = tags[read_slot];
  assign last_empty = empties[KMAX];
  assign last_sum = sums[KMAX*SW+:SW];
  always_ff @(posedge clk) if (insert) tags[slot_q] <= tag_q;
`ifndef SYNTHESIS
  initial for (c = 0; c < (1 << AW); c = c + 1) tags[c] = '1;
`endif

  assign in_ready = state_q == S_PLAIN;
  assign insert = (state_q == S_PLAIN) && insert_q;
  assign step = (state_q == S_STEP) && less_q;
  assign busy = insert_q || (state_q != S_PLAIN);

  always_ff @(posedge clk) begin
    // The key before, which may have to come back, and its slot.
    if (state_q == S_PLAIN) {old_sum_q, old_tag_q, old_slot_q} <= {sum_q, tag_q, slot_q};
    if (insert) end_mark_q <= !lt[KMAX];
    else if (step) end_mark_q <= 1'b0;
    left_slot_q <= left_slot;
    equal_q <= left_equal || (state_q == S_FIRST);
    less_q <= equal_q && (tag_q < last_tag);
    if (state_q == S_PLAIN) threshold <= {last_empty, last_sum, last_tag};
    if (rst) begin
      state_q   <= S_PLAIN;
      insert_q  <= 1'b0;
      slot_q    <= AW'(KMAX);
      threshold <= {(1 + SW + TW) {1'b1}};
    end else begin
      case (state_q)
        S_PLAIN: begin
          {sum_q, tag_q} <= {in_sum, in_tag};
          insert_q <= in_valid && ({1'b0, in_sum, in_tag} < threshold);
          if (insert && lt[KMAX]) slot_q <= last_slot;
          if (insert && (eq != 0)) state_q <= S_FIRST;
        end
        S_FIRST: begin  // the next key waits in place of the one that comes back
          {sum_q, tag_q, slot_q} <= {old_sum_q, old_tag_q, old_slot_q};
          {old_sum_q, old_tag_q, old_slot_q} <= {sum_q, tag_q, slot_q};
          held_q   <= insert_q;
          insert_q <= 1'b0;
          state_q  <= S_READ;
        end
        S_READ: state_q <= S_STEP;
        S_LOOK: state_q <= S_READ;
        default: begin
          if (less_q) begin
            if (end_mark_q) old_slot_q <= left_slot_q;
            state_q <= S_LOOK;
          end else begin
            {sum_q, tag_q, slot_q} <= {old_sum_q, old_tag_q, old_slot_q};
            insert_q <= held_q;
            state_q  <= S_PLAIN;
          end
        end
      endcase
    end
  end
endmodule
