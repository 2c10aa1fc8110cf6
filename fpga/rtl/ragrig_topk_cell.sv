// One cell of the top-K queue: holds a sum and the slot of its tag, and takes the new ones or
// its left neighbour's when the new sum is smaller. All cells see the new sum in the same cycle.
//
//   pinned         a cell beyond the run-time K: never takes part, always empty
//   insert, sum_i, slot_i   a new sum; it goes behind all sums that are not larger
//   shift          hands out to the right: takes the left neighbour's
//   step           the new entry, in the cell that is marked, changes places with its left
//                    neighbour of the same sum
//   left_*, right_mark   the neighbours' contents, decision and mark
//   lt_o, eq_o     the new sum is smaller, is the same
//   mark_o         the last insertion, as far as it has moved, is here
//   SLOT           slot of the cell after a reset: every slot is in one cell, but one
module ragrig_topk_cell #(
    parameter int SW = 24,
    parameter int AW = 7,
    parameter int SLOT = 0
) (
    input  logic          clk,
    input  logic          rst,
    input  logic          pinned,
    input  logic          insert,
    input  logic          shift,
    input  logic          step,
    input  logic [SW-1:0] sum_i,
    input  logic [AW-1:0] slot_i,
    input  logic          left_empty,
    input  logic [SW-1:0] left_sum,
    input  logic [AW-1:0] left_slot,
    input  logic          left_lt,
    input  logic          right_mark,
    output logic          lt_o,
    output logic          eq_o,
    output logic          mark_o,
    output logic          empty_o,
    output logic [SW-1:0] sum_o,
    output logic [AW-1:0] slot_o
);
  logic from_left;
  assign lt_o = !pinned && (empty_o || (sum_i < sum_o));
  assign eq_o = !empty_o && (sum_i == sum_o);
  assign from_left = shift || left_lt || (step && mark_o);

  always_ff @(posedge clk) begin
    if (insert) mark_o <= lt_o && !left_lt;
    else if (step) mark_o <= right_mark;
    if (rst) begin
      {empty_o, sum_o} <= {(SW + 1) {1'b1}};
      slot_o <= AW'(SLOT);
    end else if (shift || (insert && lt_o) || (step && (mark_o || right_mark))) begin
      {empty_o, sum_o} <= from_left ? {left_empty, left_sum} : {1'b0, sum_i};
      slot_o <= from_left ? left_slot : slot_i;
    end
  end
endmodule
