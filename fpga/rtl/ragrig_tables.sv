// The way of the tables: commands to reads, records to tables where the card makes them, tables
// to the lanes' banks.
//
//   vectors, codebook, steps, vector_beats, vector_shift, biased   arguments; see ragrig_arguments
//   begin_i        a start begins to read: the codebook comes ahead of the first table
//   cmd_*          a table, or the words of biases behind it, by number
//   release_i, take, loaded, table_*, words*   see ragrig_table_loader
//   busy           a codebook is not complete yet
//   quiet, bad, ar*, r*   see ragrig_reader
//
// VECTORS: the build has a table maker, of MACS components per column and cycle and STEPS words.
module ragrig_tables #(
    parameter int M = 16,
    parameter int LW = 16,
    parameter bit VECTORS = 1'b1,
    parameter int MACS = 8,
    parameter int STEPS = 4,
    localparam int ROW = M * LW
) (
    input  logic           clk,
    input  logic           rst,
    input  logic           stop,
    input  logic           vectors,
    input  logic           codebook,
    input  logic           biased,
    /* verilator lint_off UNUSEDSIGNAL */
    input  logic [31:0]    steps,  // as many bits as STEPS has
    input  logic [31:0]    vector_beats,
    input  logic [31:0]    vector_shift,
    /* verilator lint_on UNUSEDSIGNAL */
    input  logic [63:0]    tables_base,
    input  logic [63:0]    words_base,
    input  logic [63:0]    codebook_base,
    input  logic           begin_i,
    output logic           busy,
    input  logic           cmd_valid,
    output logic           cmd_ready,
    input  logic           cmd_words,
    input  logic [31:0]    cmd_number,
    input  logic           release_i,
    input  logic           take,
    output logic           loaded,
    output logic           table_we,
    output logic           table_bank,
    output logic [7:0]     table_code,
    output logic [ROW-1:0] table_row,
    output logic           words_we,
    output logic [31:0]    words,
    output logic           quiet,
    output logic           bad,
    output logic           arvalid,
    input  logic           arready,
    output logic [63:0]    araddr,
    output logic [7:0]     arlen,
    input  logic           rvalid,
    input  logic [511:0]   rdata,
    input  logic           rbad
);
  localparam int TABLE_BEATS = 256 * ROW / 512;
  localparam int TABLE_SHIFT = $clog2(TABLE_BEATS * 64);
  localparam logic [1:0] K_TABLE = 2'd0, K_WORDS = 2'd1, K_VECTOR = 2'd2, K_BOOK = 2'd3;
  logic         made, due_q, go, read_q, read_ready, read_valid, read_pop, beat_valid, beat_pop;
  logic [1:0]   kind, kind_q;
  logic [4:0]   shift;
  logic [31:0]  read_beats;
  logic [63:0]  base, offset_q;
  logic [511:0] read_data, beat;

  // A command waits in a register, its address half made.
  assign made      = VECTORS && vectors;
  assign go        = !read_q || read_ready;
  assign cmd_ready = go && !due_q;
  always_comb begin
    kind  = K_TABLE;
    shift = 5'(TABLE_SHIFT);
    if (due_q) kind = K_BOOK;
    else if (cmd_words) begin
      kind  = K_WORDS;
      shift = 5'd10;
    end else if (made) begin
      kind  = K_VECTOR;
      shift = vector_shift[4:0];
    end
  end
  always_ff @(posedge clk) begin
    if (rst) begin
      due_q  <= 1'b0;
      read_q <= 1'b0;
    end else begin
      due_q  <= (begin_i && made && codebook) || (due_q && !go);
      read_q <= due_q || cmd_valid || !go;
    end
    if (go) begin
      kind_q   <= kind;
      offset_q <= due_q ? 64'd0 : 64'(cmd_number) << shift;
    end
  end
  always_comb begin
    base       = tables_base;
    read_beats = 32'(TABLE_BEATS);
    case (kind_q)
      K_WORDS: begin
        base       = words_base;
        read_beats = 32'd16;
      end
      K_VECTOR: read_beats = vector_beats;
      K_BOOK: begin
        base       = codebook_base;
        read_beats = (vector_beats - 32'd1) << 8;  // a vector without its head, for each code
      end
      default: ;
    endcase
  end
  ragrig_reader #(.DEPTH(64), .BURST(16)) i_reader (
      .clk, .rst, .stop, .cmd_valid(read_q), .cmd_ready(read_ready), .cmd_addr(base + offset_q),
      .cmd_beats(read_beats), .valid(read_valid), .data(read_data), .pop(read_pop), .quiet, .bad,
      .arvalid, .arready, .araddr, .arlen, .rvalid, .rdata, .rbad
  );

  generate
    if (VECTORS) begin : g_maker
      localparam int SB = $clog2(STEPS + 1);
      logic         maker_pop, maker_valid;
      logic [511:0] maker_data;
      ragrig_table_maker #(.M(M), .LW(LW), .U(MACS), .STEPS(STEPS)) i_maker (
          .clk, .rst, .book(made && codebook), .steps(steps[SB-1:0]), .booking(busy),
          .in_valid(made && read_valid), .in_data(read_data), .in_pop(maker_pop),
          .out_valid(maker_valid), .out_data(maker_data), .out_pop(made && beat_pop)
      );
      assign beat_valid = made ? maker_valid : read_valid;
      assign beat       = made ? maker_data : read_data;
      assign read_pop   = made ? maker_pop : beat_pop;
    end else begin : g_no_maker
      assign busy       = 1'b0;
      assign beat_valid = read_valid;
      assign beat       = read_data;
      assign read_pop   = beat_pop;
    end
  endgenerate
  ragrig_table_loader #(.M(M), .LW(LW)) i_loader (
      .clk, .rst, .biased, .valid(beat_valid), .data(beat), .pop(beat_pop), .release_i, .take,
      .loaded, .we(table_we), .bank(table_bank), .code(table_code), .row(table_row), .words_we,
      .words
  );
endmodule
