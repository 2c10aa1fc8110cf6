// Made from fpga/regs.toml by `python -m retrieval_node.backends.fpga.generate`; do not edit.
// Use ragrig_regs_pkg::NAME: not every tool takes an import.
// Offsets are bytes; a channel's register is at the offset plus 8 * channel.
package ragrig_regs_pkg;

  // version 1.1
  localparam logic [31:0] VERSION = 32'h00010001;
  // of the AXI-Lite port
  localparam int ADDRESS_BITS = 12;
  // registers exist for so many
  localparam int MAX_CHANNELS = 32;
  // ap_start, ap_done, ap_idle, ap_ready; see the bits
  localparam logic [11:0] REG_CTRL = 12'h000;
  // bit 0: global interrupt enable
  localparam logic [11:0] REG_GIE = 12'h004;
  // interrupt enable: bit 0 done, bit 1 ready
  localparam logic [11:0] REG_IER = 12'h008;
  // interrupt status: bit 0 done, bit 1 ready; toggles on write
  localparam logic [11:0] REG_ISR = 12'h00c;
  // queries of this start, at least 1
  localparam logic [11:0] REG_NUM_QUERIES = 12'h010;
  // list descriptors per query, at least 1; one with no codes is passed over
  localparam logic [11:0] REG_NPROBE = 12'h014;
  // results per query, 1 .. build_kmax
  localparam logic [11:0] REG_K = 12'h018;
  // table columns in use; the host fills the others of the build with zero
  localparam logic [11:0] REG_M = 12'h01c;
  // 0: a table per list (A), 1: a table per query (B)
  localparam logic [11:0] REG_MODE = 12'h020;
  // 0: l2, 1: inner product; says nothing that the tables do not
  localparam logic [11:0] REG_METRIC = 12'h024;
  // what else is read; see the flags
  localparam logic [11:0] REG_FLAGS = 12'h028;
  // bytes from one code to the next; equal to build_m where that is not 0
  localparam logic [11:0] REG_CODE_BYTES = 12'h02c;
  // address of the list descriptors, num_queries * nprobe records
  localparam logic [11:0] REG_LISTS = 12'h030;
  // upper half
  localparam logic [11:0] REG_LISTS_HIGH = 12'h034;
  // address of the tables, [tables][256][code_bytes] entries of 16 bits (8 bits where build_lw is 8); of the vectors where the card makes the tables
  localparam logic [11:0] REG_TABLES = 12'h038;
  // upper half
  localparam logic [11:0] REG_TABLES_HIGH = 12'h03c;
  // address of the results, one record of 64 * (1 + ceil(k / 8)) bytes per query
  localparam logic [11:0] REG_RESULTS = 12'h040;
  // upper half
  localparam logic [11:0] REG_RESULTS_HIGH = 12'h044;
  // address of the ids, 32 bits each, by tag
  localparam logic [11:0] REG_IDS = 12'h048;
  // upper half
  localparam logic [11:0] REG_IDS_HIGH = 12'h04c;
  // address of the lane masks, words of 64 bits, a multiple of 64; read in whole beats of 64 bytes where the flag is set
  localparam logic [11:0] REG_MASKS = 12'h050;
  // upper half
  localparam logic [11:0] REG_MASKS_HIGH = 12'h054;
  // address of the tables of the biases of codes, [num_queries][256][2] words of 16 bits: what this value adds as low byte, and as high byte
  localparam logic [11:0] REG_BIAS_TABLE = 12'h058;
  // upper half
  localparam logic [11:0] REG_BIAS_TABLE_HIGH = 12'h05c;
  // address of the codebook: per code the norms of its columns, 32 bits each, in whole beats, then steps words of components
  localparam logic [11:0] REG_CODEBOOK = 12'h060;
  // upper half
  localparam logic [11:0] REG_CODEBOOK_HIGH = 12'h064;
  // words of components per code and per vector, 1 .. build_steps; a word is [build_m][build_macs] components of 16 bits
  localparam logic [11:0] REG_STEPS = 12'h068;
  // beats of a vector: its head, an offset of 32 bits per column in whole beats, steps words of components
  localparam logic [11:0] REG_VECTOR_BEATS = 12'h06c;
  // log2 of the bytes from one vector to the next, at least 6
  localparam logic [11:0] REG_VECTOR_SHIFT = 12'h070;
  // address of the channel's codes
  localparam logic [11:0] REG_CODES = 12'h100;
  // address of the channel's biases of codes, 16 bits per code slot; lists start at whole beats of them; read where the flag is set
  localparam logic [11:0] REG_BIASES = 12'h200;
  // version of this map; host and device must agree in the major half
  localparam logic [11:0] REG_VERSION = 12'h300;
  // M, table columns and bytes per code; 0: any, by code_bytes
  localparam logic [11:0] REG_BUILD_M = 12'h304;
  // channels that codes are read from
  localparam logic [11:0] REG_BUILD_CHANNELS = 12'h308;
  // LW, bits of a table entry: 8 or 16
  localparam logic [11:0] REG_BUILD_LW = 12'h30c;
  // SW, bits of a sum
  localparam logic [11:0] REG_BUILD_SW = 12'h310;
  // KMAX, results per query at most
  localparam logic [11:0] REG_BUILD_KMAX = 12'h314;
  // what the build can do; the bits are those of flags
  localparam logic [11:0] REG_BUILD_FEATURES = 12'h318;
  // components per column and cycle where the card makes tables, else 0; with code_bytes in place of a build_m of 0
  localparam logic [11:0] REG_BUILD_MACS = 12'h368;
  // words of components per code that the card can hold
  localparam logic [11:0] REG_BUILD_STEPS = 12'h36c;
  // error code of the last start
  localparam logic [11:0] REG_ERROR = 12'h320;
  // query under way when the error was met
  localparam logic [11:0] REG_ERROR_QUERY = 12'h324;
  // queries whose results are written, of the last start
  localparam logic [11:0] REG_QUERIES_DONE = 12'h328;
  // cycles from start to done
  localparam logic [11:0] REG_CYCLES = 12'h330;
  // upper half
  localparam logic [11:0] REG_CYCLES_HIGH = 12'h334;
  // codes of the descriptors of the last start
  localparam logic [11:0] REG_CODES_SCANNED = 12'h338;
  // upper half
  localparam logic [11:0] REG_CODES_SCANNED_HIGH = 12'h33c;
  // bytes of codes read, last beats counted whole
  localparam logic [11:0] REG_BYTES_READ = 12'h340;
  // upper half
  localparam logic [11:0] REG_BYTES_READ_HIGH = 12'h344;
  // cycles in which the lanes waited for codes
  localparam logic [11:0] REG_STALL_MEMORY = 12'h348;
  // upper half
  localparam logic [11:0] REG_STALL_MEMORY_HIGH = 12'h34c;
  // cycles in which the lanes waited for a table
  localparam logic [11:0] REG_STALL_TABLE = 12'h350;
  // upper half
  localparam logic [11:0] REG_STALL_TABLE_HIGH = 12'h354;
  // cycles in which the lanes waited for the top-K queue
  localparam logic [11:0] REG_STALL_TOPK = 12'h358;
  // upper half
  localparam logic [11:0] REG_STALL_TOPK_HIGH = 12'h35c;
  // cycles in which a query waited for its results to be written
  localparam logic [11:0] REG_STALL_RESULT = 12'h360;
  // upper half
  localparam logic [11:0] REG_STALL_RESULT_HIGH = 12'h364;
  // set to start; clears at ap_ready
  localparam int CTRL_START_BIT = 0;
  // the start has ended; clears when it is read
  localparam int CTRL_DONE_BIT = 1;
  // nothing runs
  localparam int CTRL_IDLE_BIT = 2;
  // the next start may be written
  localparam int CTRL_READY_BIT = 3;
  // lanes are masked by the descriptors' mask words
  localparam int FLAGS_MASKS_BIT = 0;
  // codes have biases of their own (l2 in mode B); mode 1 alone has them
  localparam int FLAGS_BIASES_BIT = 1;
  // the card makes the tables, of vectors; not together with biases of codes
  localparam int FLAGS_VECTORS_BIT = 2;
  // the codebook is read first; it stays until another one, a reset or a start that fails; together with vectors
  localparam int FLAGS_CODEBOOK_BIT = 3;
  // all results are written
  localparam logic [31:0] ERROR_NONE = 32'd0;
  // an argument that the build cannot do
  localparam logic [31:0] ERROR_BAD_ARGUMENT = 32'd1;
  // a read answered SLVERR or DECERR, as one outside memory does
  localparam logic [31:0] ERROR_AXI_READ = 32'd2;
  // a write answered SLVERR or DECERR
  localparam logic [31:0] ERROR_AXI_WRITE = 32'd3;
  // mode A
  localparam logic [31:0] MODE_TABLE_PER_LIST = 32'd0;
  // mode B
  localparam logic [31:0] MODE_TABLE_PER_QUERY = 32'd1;
  // squared distance
  localparam logic [31:0] METRIC_L2 = 32'd0;
  // inner product, cosine
  localparam logic [31:0] METRIC_IP = 32'd1;
  // A probed list of a query; those of query q start at q * nprobe.
  localparam int LIST_BYTES = 32;
  // first beat of 64 bytes, in every channel alike
  localparam int LIST_WORD_FIRST_BEAT = 0;
  // codes of the list; 0: pass it over
  localparam int LIST_WORD_CODES = 1;
  // tag of its first code; the others follow
  localparam int LIST_WORD_FIRST_TAG = 2;
  // added to every sum, unsigned
  localparam int LIST_WORD_BIAS = 3;
  // first mask word of 64 bits; bit i of the mask is code i; all ones: no mask
  localparam int LIST_WORD_MASK_WORD = 4;
  // number of its table; in mode B the same for all lists of a query
  localparam int LIST_WORD_TABLE = 5;
  // Head of a vector, whose table the card makes; offsets and components follow.
  localparam int VECTOR_BYTES = 64;
  // the norms' right shift; above 31: norms are left out
  localparam int VECTOR_WORD_NORM_SHIFT = 0;
  // the right shift of what lies above the offset, 0 .. 31
  localparam int VECTOR_WORD_SUM_SHIFT = 1;
  // what is left is multiplied by it and divided by 2^16, 0 .. 65535
  localparam int VECTOR_WORD_FACTOR = 2;
  // Head of a query's results; the entries follow, nearest first by (sum, tag).
  localparam int RESULT_BYTES = 64;
  // as the register
  localparam int RESULT_WORD_VERSION = 0;
  // as the register
  localparam int RESULT_WORD_ERROR = 1;
  // results found, at most k
  localparam int RESULT_WORD_COUNT = 2;
  // number of the query in this start
  localparam int RESULT_WORD_QUERY = 3;
  // cycles of this query
  localparam int RESULT_WORD_CYCLES_LOW = 4;
  // upper half
  localparam int RESULT_WORD_CYCLES_HIGH = 5;
  // codes of its descriptors
  localparam int RESULT_WORD_CODES_LOW = 6;
  // upper half
  localparam int RESULT_WORD_CODES_HIGH = 7;
  // One result; those past count are all ones.
  localparam int ENTRY_BYTES = 8;
  // what ids holds at its tag
  localparam int ENTRY_WORD_ID = 0;
  // unsigned
  localparam int ENTRY_WORD_SUM = 1;

endpackage
