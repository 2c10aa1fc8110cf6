// Lane masks: the bits of a list's codes, P per beat of codes, out of beats of 512 bits.
//
//   start, masked, word   a list begins; whether it has a mask, and the first of the eight words
//                    of 64 bits in its first beat that holds it
//   valid, data, pop   beats of masks, those of a list after those of the list before: as many
//                    as hold P bits for each of its beats of codes
//   issue, last      a beat of codes goes to the lanes; the list's last one
//   ready, mask      the bits of the next beat of codes are there; all ones without a mask
//
// A beat of codes per cycle. With more than 64 lanes a beat's bits may lie in two beats of
// masks: the first waits in a register, which costs a cycle per list.
module ragrig_masks #(
    parameter int P = 16
) (
    input  logic         clk,
    input  logic         rst,
    input  logic         start,
    input  logic         masked,
    input  logic [2:0]   word,
    input  logic         valid,
    input  logic [511:0] data,
    output logic         pop,
    input  logic         issue,
    input  logic         last,
    output logic         ready,
    output logic [P-1:0] mask
);
  logic on_q;
  always_ff @(posedge clk) begin
    if (rst) on_q <= 1'b0;
    else if (start) on_q <= masked;
    else if (issue && last) on_q <= 1'b0;
  end

  generate
    if (P <= 64) begin : g_narrow
      localparam int AW = $clog2(512 / P);
      logic [AW-1:0] at_q;
      always_ff @(posedge clk) begin
        if (start) at_q <= AW'(32'(word) * (64 / P));
        else if (issue) at_q <= at_q + 1'b1;
      end
      assign ready = !on_q || valid;
      assign pop   = issue && on_q && (last || (&at_q));
      assign mask  = data[32'(at_q)*P+:P] | {P{!on_q}};
    end else begin : g_wide
      localparam int STEP = P / 64;
      logic [511:0] held_q;
      logic         has_q, spans, take;
      logic [4:0]   at_q, next;  // in words
      /* verilator lint_off UNUSEDSIGNAL */
      logic [1023:0] window;
      /* verilator lint_on UNUSEDSIGNAL */
      assign next   = at_q + 5'(STEP);
      assign spans  = next > 5'd8;
      assign window = {data, held_q} >> {at_q[2:0], 6'd0};
      assign ready  = !on_q || (has_q && (!spans || valid));
      assign mask   = window[P-1:0] | {P{!on_q}};
      // The next beat moves up when it is begun, or when the one before is used up.
      assign take   = on_q && valid && (!has_q || (issue && !last && (next >= 5'd8)));
      assign pop    = take || (issue && on_q && last && spans);
      always_ff @(posedge clk) begin
        if (take) held_q <= data;
        if (start) at_q <= 5'(word);
        else if (issue) at_q <= {2'd0, next[2:0]};
        if (rst || (issue && last)) has_q <= 1'b0;
        else if (take) has_q <= 1'b1;
        else if (issue && (next >= 5'd8)) has_q <= 1'b0;
      end
    end
  endgenerate
endmodule
