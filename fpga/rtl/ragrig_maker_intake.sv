// Says what each beat that the table maker reads is: part of the codebook, or of a vector.
//
//   book           the first record after a reset is a codebook: 256 times LB beats of norms and
//                  steps words; then come vectors: a head, LB beats of offsets, steps words
//   steps          words per code and vector, at least 1
//   valid, pop     beats of records
//   release_i      head and offsets of the last vector are copied: those of the next may come
//   head, rows, words   what the beat is that is taken; beat: which of its row's or word's
//   booking        it is of the codebook: its code, and the number of its word over all codes
//   bank, step     it is of a vector: the half of the buffer that it goes to, and its word
//   full           a vector is complete, until it is taken
//
// A beat per cycle. A vector waits for release_i of the one before, whose words are no longer
// needed when the one before that has been multiplied, so two halves of a buffer do.
module ragrig_maker_intake #(
    parameter int LB = 1,
    parameter int WB = 4,
    parameter int STEPS = 4,
    localparam int BW = $clog2((LB > WB ? LB : WB) + 1),
    localparam int SB = $clog2(STEPS + 1),
    localparam int AW = $clog2(256 * STEPS)
) (
    input  logic          clk,
    input  logic          rst,
    input  logic          book,
    input  logic [SB-1:0] steps,
    input  logic          valid,
    output logic          pop,
    input  logic          release_i,
    output logic          head,
    output logic          rows,
    output logic          words,
    output logic [BW-1:0] beat,
    output logic          booking,
    output logic [7:0]    code,
    output logic [AW-1:0] number,
    output logic          bank,
    output logic [SB-1:0] step,
    output logic          full,
    input  logic          take
);
  localparam logic [1:0] P_HEAD = 2'd0, P_ROWS = 2'd1, P_WORDS = 2'd2;
  logic [1:0] phase_q;
  logic       held_q, row_end, word_end, record_end;

  assign pop   = valid && !((phase_q == P_HEAD) && held_q);
  assign head  = pop && (phase_q == P_HEAD);
  assign rows  = pop && (phase_q == P_ROWS);
  assign words = pop && (phase_q == P_WORDS);
  assign row_end    = rows && (beat == BW'(LB - 1));
  assign word_end   = words && (beat == BW'(WB - 1));
  assign record_end = word_end && (step == steps - 1'b1);

  always_ff @(posedge clk) begin
    if (rst) begin
      phase_q <= book ? P_ROWS : P_HEAD;
      booking <= book;
      held_q  <= 1'b0;
      beat    <= '0;
      code    <= '0;
      number  <= '0;
      bank    <= 1'b0;
      step    <= '0;
      full    <= 1'b0;
    end else begin
      held_q <= head || (held_q && !release_i);
      full   <= (record_end && !booking) || (full && !take);
      if (head) phase_q <= P_ROWS;
      else if (row_end) phase_q <= P_WORDS;
      else if (record_end) phase_q <= (booking && (code != 8'hff)) ? P_ROWS : P_HEAD;
      if (row_end || word_end) beat <= '0;
      else if (rows || words) beat <= beat + 1'b1;
      if (word_end) begin
        step   <= record_end ? '0 : step + 1'b1;
        number <= number + 1'b1;
      end
      if (record_end) begin
        code <= code + 8'd1;
        bank <= bank ^ !booking;
        if (code == 8'hff) booking <= 1'b0;
      end
    end
  end
endmodule
