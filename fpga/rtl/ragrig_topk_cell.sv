// One cell of the top-K queue: holds a key, and takes the new one or its left neighbour's when
// the new one is smaller. All cells see the new key in the same cycle.
//
//   pinned         a cell beyond the run-time K: never takes part, always empty
//   insert, key_i  {empty, key}; a key's empty bit is 0, so it is below every empty cell
//   shift          hands out to the right: takes the left neighbour's
//   left_*, lt_o   the neighbour's key and decision, and our own decision
module ragrig_topk_cell #(
    parameter int KW = 57
) (
    input  logic          clk,
    input  logic          rst,
    input  logic          pinned,
    input  logic          insert,
    input  logic          shift,
    input  logic [KW-1:0] key_i,
    input  logic [KW-1:0] left_key,
    input  logic          left_lt,
    output logic          lt_o,
    output logic [KW-1:0] key_o
);
  assign lt_o = !pinned && (key_i < key_o);

  always_ff @(posedge clk) begin
    if (rst) key_o <= {KW{1'b1}};
    else if (shift || (insert && lt_o)) key_o <= (shift || left_lt) ? left_key : key_i;
  end
endmodule
