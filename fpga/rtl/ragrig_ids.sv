// Fetches the ids of results: one 64-byte read per tag, of which one word is kept.
//
//   push, tag      tags whose ids are wanted; DEPTH at most are under way or wait
//   base           address of the ids, 32 bits each, by tag
//   id_valid, id   the ids, in the order of the tags
//   stop, quiet, bad   as ragrig_reader
module ragrig_ids #(
    parameter int TW = 32,
    parameter int DEPTH = 128,
    localparam int AW = $clog2(DEPTH)
) (
    input  logic          clk,
    input  logic          rst,
    input  logic          stop,
    input  logic          push,
    input  logic [TW-1:0] tag,
    input  logic [63:0]   base,
    output logic          id_valid,
    output logic [31:0]   id,
    output logic          quiet,
    output logic          bad,
    output logic          arvalid,
    input  logic          arready,
    output logic [63:0]   araddr,
    input  logic          rvalid,
    input  logic [511:0]  rdata,
    input  logic          rbad
);
  logic          tag_valid, issue, word_valid;
  logic [TW-1:0] head;
  logic [3:0]    word;
  logic [AW+1:0] under_way_q;
  /* verilator lint_off UNUSEDSIGNAL */
  logic [63:0]   address;  // of 32 bits: a multiple of 4
  logic [AW:0]   waiting, asked;  // never more than DEPTH tags
  /* verilator lint_on UNUSEDSIGNAL */

  ragrig_fifo #(.W(TW), .DEPTH(DEPTH)) i_tags (
      .clk, .rst, .push, .wdata(tag), .pop(issue), .valid(tag_valid), .rdata(head), .count(waiting)
  );
  assign issue   = tag_valid && (!arvalid || arready) && !stop;
  assign address = base + {30'd0, 32'(head), 2'd0};

  // The word's place in the beat, until the beat comes.
  ragrig_fifo #(.W(4), .DEPTH(DEPTH)) i_words (
      .clk, .rst, .push(issue), .wdata(address[5:2]), .pop(rvalid && word_valid),
      .valid(word_valid), .rdata(word), .count(asked)
  );

  always_ff @(posedge clk) begin
    id <= rdata[{word, 5'd0}+:32];
    if (issue) araddr <= {address[63:6], 6'd0};
    if (rst) begin
      arvalid     <= 1'b0;
      under_way_q <= '0;
      id_valid    <= 1'b0;
    end else begin
      arvalid     <= issue || (arvalid && !arready);
      under_way_q <= under_way_q + (AW + 2)'(issue) - (AW + 2)'(rvalid);
      id_valid    <= rvalid;
    end
  end
  assign quiet = !arvalid && (under_way_q == 0);
  assign bad   = rvalid && rbad;
endmodule
