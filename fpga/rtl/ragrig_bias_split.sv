// Biases of codes: 16 bits for each code of a beat of every channel, out of beats of 32 biases.
//
//   biased           codes have biases; else everything here is idle and ready
//   valid, data, pop   a beat of biases of every channel, channel 0 lowest; lists start new ones
//   issue, last      a beat of codes goes to the lanes; the list's last one
//   ready, biases    those of the next beat of codes, lane 0's lowest
//
// A beat of codes per cycle, M / 2 of them out of one beat of biases.
module ragrig_bias_split #(
    parameter int CHANNELS = 1,
    parameter int M = 16,
    localparam int SLOTS = 64 / M,
    localparam int PARTS = 32 / SLOTS
) (
    input  logic                         clk,
    input  logic                         rst,
    input  logic                         biased,
    input  logic                         valid,
    input  logic [CHANNELS*512-1:0]      data,
    output logic                         pop,
    input  logic                         issue,
    input  logic                         last,
    output logic                         ready,
    output logic [CHANNELS*SLOTS*16-1:0] biases
);
  localparam int W = SLOTS * 16;
  logic [$clog2(PARTS)-1:0] part_q;
  assign ready = !biased || valid;
  assign pop   = issue && biased && (last || (&part_q));

  always_ff @(posedge clk) begin
    if (rst || (issue && last)) part_q <= '0;
    else if (issue) part_q <= part_q + 1'b1;
  end

  genvar c;
  generate
    for (c = 0; c < CHANNELS; c = c + 1) begin : g_channel
      assign biases[c*W+:W] = data[c*512+32'(part_q)*W+:W];
    end
  endgenerate
endmodule
