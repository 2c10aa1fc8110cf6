// The arguments of a start by name, and whether the build can do them.
//
//   args           see ragrig_control
//   bad            one of them cannot be: docs/fpga-registers.md has the ranges
//   table_*        what the table path reads (see ragrig_tables)
//
// Without latency; args hold still while a start runs.
module ragrig_arguments #(
    parameter int M = 16,
    parameter int KMAX = 128,
    parameter int FEATURES = 15,
    parameter int MACS = 8,
    parameter int STEPS = 4,
    localparam int ARGS = 25,
    localparam int CW = $clog2(KMAX + 1)
) (
    /* verilator lint_off UNUSEDSIGNAL */
    input  logic [ARGS*32-1:0] args,  // metric is for the host alone
    /* verilator lint_on UNUSEDSIGNAL */
    output logic               bad,
    output logic [31:0]        num_queries,
    output logic [31:0]        nprobe,
    output logic [CW-1:0]      k,
    output logic               per_query,
    output logic               masked,
    output logic               biased,
    output logic               vectors,
    output logic               codebook,
    output logic [63:0]        lists_base,
    output logic [63:0]        tables_base,
    output logic [63:0]        results_base,
    output logic [63:0]        ids_base,
    output logic [63:0]        masks_base,
    output logic [63:0]        words_base,
    output logic [63:0]        codebook_base,
    output logic [31:0]        steps,
    output logic [31:0]        vector_beats,
    output logic [31:0]        vector_shift
);
  localparam int ROW_BEATS = (M > 16) ? M / 16 : 1;
  localparam int WORD_SHIFT = $clog2(M * MACS * 16 / 512);
  logic [31:0] k_given, m, mode, flags, code_bytes;
  logic        bad_scan, bad_vectors;

  assign num_queries   = args[(32'(ragrig_regs_pkg::REG_NUM_QUERIES)-16)*8+:32];
  assign nprobe        = args[(32'(ragrig_regs_pkg::REG_NPROBE)-16)*8+:32];
  assign k_given       = args[(32'(ragrig_regs_pkg::REG_K)-16)*8+:32];
  assign m             = args[(32'(ragrig_regs_pkg::REG_M)-16)*8+:32];
  assign mode          = args[(32'(ragrig_regs_pkg::REG_MODE)-16)*8+:32];
  assign flags         = args[(32'(ragrig_regs_pkg::REG_FLAGS)-16)*8+:32];
  assign code_bytes    = args[(32'(ragrig_regs_pkg::REG_CODE_BYTES)-16)*8+:32];
  assign lists_base    = args[(32'(ragrig_regs_pkg::REG_LISTS)-16)*8+:64];
  assign tables_base   = args[(32'(ragrig_regs_pkg::REG_TABLES)-16)*8+:64];
  assign results_base  = args[(32'(ragrig_regs_pkg::REG_RESULTS)-16)*8+:64];
  assign ids_base      = args[(32'(ragrig_regs_pkg::REG_IDS)-16)*8+:64];
  assign masks_base    = args[(32'(ragrig_regs_pkg::REG_MASKS)-16)*8+:64];
  assign words_base    = args[(32'(ragrig_regs_pkg::REG_BIAS_TABLE)-16)*8+:64];
  assign codebook_base = args[(32'(ragrig_regs_pkg::REG_CODEBOOK)-16)*8+:64];
  assign steps         = args[(32'(ragrig_regs_pkg::REG_STEPS)-16)*8+:32];
  assign vector_beats  = args[(32'(ragrig_regs_pkg::REG_VECTOR_BEATS)-16)*8+:32];
  assign vector_shift  = args[(32'(ragrig_regs_pkg::REG_VECTOR_SHIFT)-16)*8+:32];
  assign k         = k_given[CW-1:0];
  assign per_query = mode[0];
  assign masked    = flags[ragrig_regs_pkg::FLAGS_MASKS_BIT];
  assign biased    = flags[ragrig_regs_pkg::FLAGS_BIASES_BIT];
  assign vectors   = flags[ragrig_regs_pkg::FLAGS_VECTORS_BIT];
  assign codebook  = flags[ragrig_regs_pkg::FLAGS_CODEBOOK_BIT];

  assign bad_scan = (num_queries == 0) || (nprobe == 0) || (k_given == 0) || (k_given > 32'(KMAX)) || (m == 0)
                    || (m > 32'(M)) || (code_bytes != 32'(M)) || (mode > 32'd1)
                    || ((flags & ~32'(FEATURES)) != 0) || (biased && !per_query)
                    || (codebook && !vectors);
  assign bad_vectors = biased || (steps == 0) || (steps > 32'(STEPS))
                       || (vector_beats != 32'(1 + ROW_BEATS) + (steps << WORD_SHIFT))
                       || (vector_shift < 32'd6) || (vector_shift > 32'd31);
  assign bad = bad_scan || (vectors && bad_vectors);
endmodule
