// The accelerator: AXI4-Lite control, an AXI4 master for descriptors, tables, ids and results,
// and one that only reads codes per memory channel. Registers and records: docs/fpga-registers.md.
//
// Parameters: CHANNELS and M (columns; 8, 16, 32, 64), both powers of two with at least two lanes
// P = CHANNELS * 64 / M; LW (8 or 16 bits per entry), SW (bits of a sum), KMAX (at least 2),
// CODE_DEPTH and CODE_BURST (beats that a channel buffers and reads at once). The channels'
// signals lie side by side, channel 0 lowest; ragrig_scan names them for a Vitis kernel.
//
// FEATURES: what flags may ask for, lane masks (1), biases of codes (2), tables made of vectors
// (4) with a codebook (8); for these MACS components per column and cycle, a power of two with at
// least 32 over all columns, and room for STEPS words per code.
//
// Throughput: P codes per cycle from memory that keeps up. Biases of codes are read over their
// channel's port too: a beat of them for M / 2 beats of codes.
module ragrig_core #(
    parameter int CHANNELS = 1,
    parameter int M = 16,
    parameter int LW = 16,
    parameter int SW = 24,
    parameter int KMAX = 128,
    parameter int CODE_DEPTH = 256,
    parameter int CODE_BURST = 32,
    parameter int FEATURES = 15,
    parameter int MACS = 8,
    parameter int STEPS = 4
) (
    input  logic                    ap_clk,
    input  logic                    ap_rst_n,
    output logic                    interrupt,
    output logic                    idle_o,
    input  logic [11:0]             s_axi_control_awaddr,
    input  logic                    s_axi_control_awvalid,
    output logic                    s_axi_control_awready,
    input  logic [31:0]             s_axi_control_wdata,
    input  logic [3:0]              s_axi_control_wstrb,
    input  logic                    s_axi_control_wvalid,
    output logic                    s_axi_control_wready,
    output logic [1:0]              s_axi_control_bresp,
    output logic                    s_axi_control_bvalid,
    input  logic                    s_axi_control_bready,
    input  logic [11:0]             s_axi_control_araddr,
    input  logic                    s_axi_control_arvalid,
    output logic                    s_axi_control_arready,
    output logic [31:0]             s_axi_control_rdata,
    output logic [1:0]              s_axi_control_rresp,
    output logic                    s_axi_control_rvalid,
    input  logic                    s_axi_control_rready,
    output logic [1:0]              m_axi_host_arid,
    output logic [63:0]             m_axi_host_araddr,
    output logic [7:0]              m_axi_host_arlen,
    output logic [2:0]              m_axi_host_arsize,
    output logic [1:0]              m_axi_host_arburst,
    output logic                    m_axi_host_arvalid,
    input  logic                    m_axi_host_arready,
    input  logic [1:0]              m_axi_host_rid,
    input  logic [511:0]            m_axi_host_rdata,
    input  logic [1:0]              m_axi_host_rresp,
    input  logic                    m_axi_host_rlast,
    input  logic                    m_axi_host_rvalid,
    output logic                    m_axi_host_rready,
    output logic [1:0]              m_axi_host_awid,
    output logic [63:0]             m_axi_host_awaddr,
    output logic [7:0]              m_axi_host_awlen,
    output logic [2:0]              m_axi_host_awsize,
    output logic [1:0]              m_axi_host_awburst,
    output logic                    m_axi_host_awvalid,
    input  logic                    m_axi_host_awready,
    output logic [511:0]            m_axi_host_wdata,
    output logic [63:0]             m_axi_host_wstrb,
    output logic                    m_axi_host_wlast,
    output logic                    m_axi_host_wvalid,
    input  logic                    m_axi_host_wready,
    input  logic [1:0]              m_axi_host_bid,
    input  logic [1:0]              m_axi_host_bresp,
    input  logic                    m_axi_host_bvalid,
    output logic                    m_axi_host_bready,
    output logic [CHANNELS-1:0]     m_axi_codes_arid,
    output logic [CHANNELS*64-1:0]  m_axi_codes_araddr,
    output logic [CHANNELS*8-1:0]   m_axi_codes_arlen,
    output logic [CHANNELS-1:0]     m_axi_codes_arvalid,
    input  logic [CHANNELS-1:0]     m_axi_codes_arready,
    input  logic [CHANNELS-1:0]     m_axi_codes_rid,
    input  logic [CHANNELS*512-1:0] m_axi_codes_rdata,
    input  logic [CHANNELS*2-1:0]   m_axi_codes_rresp,
    input  logic [CHANNELS-1:0]     m_axi_codes_rvalid,
    output logic [CHANNELS-1:0]     m_axi_codes_rready
);
  localparam int P = CHANNELS * 64 / M;
  localparam int TW = 32;
  localparam int CW = $clog2(KMAX + 1);
  localparam int ROW = M * LW;
  localparam int LANE_LATENCY = 3 + $clog2(M);
  // From a look at ready to a lane's FIFO: the lane, its filter, and ready's own register.
  localparam int MARGIN = LANE_LATENCY + 4;
  localparam int IDS_DEPTH = 1 << $clog2(KMAX);
  localparam bit MASKS = ((FEATURES >> ragrig_regs_pkg::FLAGS_MASKS_BIT) & 1) != 0;
  localparam bit BIASES = ((FEATURES >> ragrig_regs_pkg::FLAGS_BIASES_BIT) & 1) != 0;
  localparam bit VECTORS = ((FEATURES >> ragrig_regs_pkg::FLAGS_VECTORS_BIT) & 1) != 0;

  // Control.
  logic                   rst, clear, start, finish, idle, load, stop, run;
  logic [25*32-1:0]       args;
  logic [CHANNELS*64-1:0] code_bases, bias_bases;
  logic [28*32-1:0]       status;
  logic [31:0]            num_queries, nprobe, steps, vector_beats, vector_shift;
  logic [CW-1:0]          k;
  logic [63:0]            lists_base, tables_base, results_base, ids_base, masks_base, words_base;
  logic [63:0]            codebook_base;
  logic                   per_query, masked, biased, vectors, codebook, booking;
  logic                   bad_args, read_bad, write_bad, quiet, fetch_lists;
  logic [31:0]            list_beats, error, error_query, written;

  ragrig_control #(.CHANNELS(CHANNELS), .BIASES(BIASES)) i_control (
      .clk(ap_clk), .rst(!ap_rst_n),
      .s_axi_awaddr(s_axi_control_awaddr), .s_axi_awvalid(s_axi_control_awvalid),
      .s_axi_awready(s_axi_control_awready), .s_axi_wdata(s_axi_control_wdata),
      .s_axi_wstrb(s_axi_control_wstrb), .s_axi_wvalid(s_axi_control_wvalid),
      .s_axi_wready(s_axi_control_wready), .s_axi_bresp(s_axi_control_bresp),
      .s_axi_bvalid(s_axi_control_bvalid), .s_axi_bready(s_axi_control_bready),
      .s_axi_araddr(s_axi_control_araddr), .s_axi_arvalid(s_axi_control_arvalid),
      .s_axi_arready(s_axi_control_arready), .s_axi_rdata(s_axi_control_rdata),
      .s_axi_rresp(s_axi_control_rresp), .s_axi_rvalid(s_axi_control_rvalid),
      .s_axi_rready(s_axi_control_rready), .interrupt, .args, .codes(code_bases), .biases(bias_bases),
      .start, .finish, .idle, .status
  );
  ragrig_arguments #(
      .M(M), .KMAX(KMAX), .FEATURES(FEATURES), .MACS(MACS), .STEPS(STEPS)
  ) i_arguments (
      .args, .bad(bad_args), .num_queries, .nprobe, .k, .per_query, .masked, .biased, .vectors,
      .codebook, .lists_base, .tables_base, .results_base, .ids_base, .masks_base, .words_base,
      .codebook_base, .steps, .vector_beats, .vector_shift
  );

  ragrig_sequencer i_sequencer (
      .clk(ap_clk), .rst(!ap_rst_n), .start, .finish, .idle, .bad_args, .num_queries, .nprobe,
      .written, .booking, .read_bad, .write_bad, .quiet, .clear, .load, .fetch_lists, .list_beats,
      .stop, .run, .error, .error_query
  );
  assign rst    = !ap_rst_n || clear;
  assign idle_o = idle && !start;

  // Host port: descriptors (0), ids (1), tables (2), masks (3) share the reads.
  logic [3:0]   ar_valid, ar_ready, r_valid, unit_quiet, unit_bad;
  logic [255:0] ar_addr;
  logic [31:0]  ar_len;
  logic         arbiter_quiet, writer_quiet;
  ragrig_arbiter #(.N(4)) i_arbiter (
      .clk(ap_clk), .rst, .in_valid(ar_valid), .in_ready(ar_ready), .in_addr(ar_addr),
      .in_len(ar_len), .quiet(arbiter_quiet), .arvalid(m_axi_host_arvalid),
      .arready(m_axi_host_arready), .arid(m_axi_host_arid), .araddr(m_axi_host_araddr),
      .arlen(m_axi_host_arlen)
  );
  assign m_axi_host_arsize  = 3'd6;
  assign m_axi_host_arburst = 2'd1;
  assign m_axi_host_rready  = 1'b1;
  assign r_valid = {
    m_axi_host_rvalid && (m_axi_host_rid == 2'd3),
    m_axi_host_rvalid && (m_axi_host_rid == 2'd2),
    m_axi_host_rvalid && (m_axi_host_rid == 2'd1),
    m_axi_host_rvalid && (m_axi_host_rid == 2'd0)
  };

  logic         desc_valid, desc_pop, lists_ready;
  logic [511:0] desc_data;
  ragrig_reader #(.DEPTH(16), .BURST(8), .BLOCK(1'b0)) i_lists (
      .clk(ap_clk), .rst, .stop, .cmd_valid(fetch_lists), .cmd_ready(lists_ready),
      .cmd_addr(lists_base), .cmd_beats(list_beats), .valid(desc_valid), .data(desc_data),
      .pop(desc_pop), .quiet(unit_quiet[0]), .bad(unit_bad[0]), .arvalid(ar_valid[0]),
      .arready(ar_ready[0]), .araddr(ar_addr[63:0]), .arlen(ar_len[7:0]), .rvalid(r_valid[0]),
      .rdata(m_axi_host_rdata), .rbad(m_axi_host_rresp[1])
  );

  // Descriptors to commands. Commands wait in line, so that codes and the next query's
  // table are read ahead over short lists.
  localparam int SCAN = 4 + 32 + TW + SW + 4;
  logic            fetch_valid, table_cmd, table_cmd_ready, scan_push, scan_ready;
  logic            scan_bank, scan_fresh, scan_release, scan_last, scan_masked, table_words;
  logic            mask_cmd, mask_cmd_ready;
  logic [2:0]      scan_word;
  logic [31:0]     mask_beat, mask_beats;
  logic [31:0]     fetch_beat, fetch_beats, table_number, scan_codes;
  logic [TW-1:0]   scan_tag;
  logic [SW-1:0]   scan_bias;
  logic [CHANNELS-1:0] fetch_ready;
  logic            cmd_valid, cmd_pop;
  logic [SCAN-1:0] cmd;
  logic [5:0]      cmd_count;
  ragrig_walker #(.P(P), .SW(SW), .TW(TW)) i_walker (
      .clk(ap_clk), .rst, .stop, .num_queries, .nprobe, .per_query, .biased, .masked,
      .desc_valid, .desc_data, .desc_pop, .fetch_valid,
      .fetch_ready((&fetch_ready) && mask_cmd_ready), .fetch_beat,
      .fetch_beats, .mask_valid(mask_cmd), .mask_beat, .mask_beats, .table_valid(table_cmd),
      .table_ready(table_cmd_ready), .table_words, .table_number,
      .scan_valid(scan_push), .scan_ready, .scan_codes, .scan_tag, .scan_bias, .scan_masked,
      .scan_word, .scan_bank,
      .scan_fresh, .scan_release, .scan_last
  );
  ragrig_fifo #(.W(SCAN), .DEPTH(32)) i_scan_line (
      .clk(ap_clk), .rst, .push(scan_push),
      .wdata({scan_masked, scan_word, scan_codes, scan_tag, scan_bias, scan_bank, scan_fresh, scan_release, scan_last}),
      .pop(cmd_pop), .valid(cmd_valid), .rdata(cmd), .count(cmd_count)
  );
  assign scan_ready = cmd_count < 6'd32;

  logic           table_loaded, table_take, table_release, table_we, table_bank, words_we;
  logic [31:0]    words;
  logic [7:0]     table_code;
  logic [ROW-1:0] table_row;
  ragrig_tables #(.M(M), .LW(LW), .VECTORS(VECTORS), .MACS(MACS), .STEPS(STEPS)) i_tables (
      .clk(ap_clk), .rst, .stop, .vectors, .codebook, .biased, .steps, .vector_beats,
      .vector_shift, .tables_base, .words_base, .codebook_base, .begin_i(fetch_lists),
      .busy(booking), .cmd_valid(table_cmd), .cmd_ready(table_cmd_ready), .cmd_words(table_words),
      .cmd_number(table_number), .release_i(table_release), .take(table_take),
      .loaded(table_loaded), .table_we, .table_bank, .table_code, .table_row, .words_we, .words,
      .quiet(unit_quiet[2]), .bad(unit_bad[2]), .arvalid(ar_valid[2]), .arready(ar_ready[2]),
      .araddr(ar_addr[191:128]), .arlen(ar_len[23:16]), .rvalid(r_valid[2]),
      .rdata(m_axi_host_rdata), .rbad(m_axi_host_rresp[1])
  );

  // Codes, and biases of codes beside them.
  logic                    issue, last_beat, list_start, biases_pop, biases_ready;
  logic [CHANNELS-1:0]     codes_valid, codes_quiet, codes_bad, biases_valid;
  logic [CHANNELS*512-1:0] codes, bias_beats;
  logic [P*16-1:0]         biases;
  genvar c;
  generate
    for (c = 0; c < CHANNELS; c = c + 1) begin : g_channel
      ragrig_channel #(.M(M), .DEPTH(CODE_DEPTH), .BURST(CODE_BURST), .BIASES(BIASES)) i_channel (
          .clk(ap_clk), .rst, .stop, .fetch_valid, .fetch_ready(fetch_ready[c]), .fetch_beat,
          .fetch_beats, .biased, .codes_base(code_bases[c*64+:64]),
          .biases_base(bias_bases[c*64+:64]), .codes_valid(codes_valid[c]),
          .codes(codes[c*512+:512]), .codes_pop(issue), .biases_valid(biases_valid[c]),
          .biases(bias_beats[c*512+:512]), .biases_pop, .quiet(codes_quiet[c]),
          .bad(codes_bad[c]), .arid(m_axi_codes_arid[c]), .arvalid(m_axi_codes_arvalid[c]),
          .arready(m_axi_codes_arready[c]), .araddr(m_axi_codes_araddr[c*64+:64]),
          .arlen(m_axi_codes_arlen[c*8+:8]), .rid(m_axi_codes_rid[c]),
          .rvalid(m_axi_codes_rvalid[c]), .rdata(m_axi_codes_rdata[c*512+:512]),
          .rbad(m_axi_codes_rresp[c*2+1])
      );
    end
  endgenerate
  assign m_axi_codes_rready = {CHANNELS{1'b1}};
  ragrig_bias_split #(.CHANNELS(CHANNELS), .M(M)) i_split (
      .clk(ap_clk), .rst, .biased(BIASES && biased), .valid(&biases_valid), .data(bias_beats),
      .pop(biases_pop), .issue, .last(last_beat), .ready(biases_ready), .biases
  );

  // Masks.
  logic         mask_valid, mask_pop, mask_ready;
  logic [511:0] mask_bits;
  logic [P-1:0] mask;
  generate
    if (MASKS) begin : g_masks
      ragrig_reader #(.DEPTH(16), .BURST(8), .BLOCK(1'b0)) i_read (
          .clk(ap_clk), .rst, .stop, .cmd_valid(mask_cmd), .cmd_ready(mask_cmd_ready),
          .cmd_addr(masks_base + {26'd0, mask_beat, 6'd0}), .cmd_beats(mask_beats),
          .valid(mask_valid), .data(mask_bits), .pop(mask_pop), .quiet(unit_quiet[3]),
          .bad(unit_bad[3]), .arvalid(ar_valid[3]), .arready(ar_ready[3]),
          .araddr(ar_addr[255:192]), .arlen(ar_len[31:24]), .rvalid(r_valid[3]),
          .rdata(m_axi_host_rdata), .rbad(m_axi_host_rresp[1])
      );
      ragrig_masks #(.P(P)) i_masks (
          .clk(ap_clk), .rst, .start(list_start), .masked(cmd[SCAN-1]), .word(cmd[SCAN-2-:3]),
          .valid(mask_valid), .data(mask_bits), .pop(mask_pop), .issue, .last(last_beat),
          .ready(mask_ready), .mask
      );
    end else begin : g_no_masks
      assign {mask_cmd_ready, mask_ready, mask_valid, mask_pop} = 4'b1100;
      assign {mask_bits, ar_addr[255:192], ar_len[31:24], ar_valid[3], unit_bad[3]} = '0;
      assign unit_quiet[3] = 1'b1;
      assign mask = {P{1'b1}};
    end
  endgenerate

  // Scan, lanes, top-K.
  logic [P-1:0]    lane_valid, sum_valid;
  logic [TW-1:0]   tag, first_tag, top_tag;
  logic [SW-1:0]   bias, top_sum;
  logic [P*SW-1:0] sums;
  logic            bank, topk_ready, topk_idle, drain, query_end, writer_free;
  logic            top_valid, top_found, top_last;
  logic            stall_memory, stall_table, stall_topk, stall_result;
  logic [CW-1:0]   top_rank;
  logic [63:0]     query_codes;
  ragrig_scan_control #(.P(P), .SW(SW), .TW(TW), .FLUSH(LANE_LATENCY + 4)) i_scan (
      .clk(ap_clk), .rst, .cmd_valid, .cmd_pop, .cmd_codes(cmd[SCAN-5-:32]),
      .cmd_tag(cmd[4+SW+:TW]), .cmd_bias(cmd[4+:SW]), .cmd_bank(cmd[3]), .cmd_fresh(cmd[2]),
      .cmd_release(cmd[1]), .cmd_last(cmd[0]), .table_loaded, .table_take, .table_release,
      .list_start, .last_beat,
      .beats_valid((&codes_valid) && biases_ready && mask_ready && !stop), .mask, .issue, .lane_valid, .tag, .bias, .bank, .topk_ready,
      .topk_idle, .drain, .drain_last(top_valid && top_last), .writer_free, .query_end,
      .query_codes, .stall_memory, .stall_table, .stall_topk, .stall_result
  );
  ragrig_lanes #(.P(P), .M(M), .LW(LW), .SW(SW), .TW(TW), .BIASES(BIASES)) i_lanes (
      .clk(ap_clk), .rst, .table_we, .table_bank, .table_code, .table_row, .words_we, .words,
      .in_valid(lane_valid),
      .in_bank(bank), .in_codes(codes), .in_bias(bias), .in_biased(biased), .in_biases(biases),
      .in_tag(tag), .out_valid(sum_valid),
      .out_sum(sums), .out_tag(first_tag)
  );
  ragrig_topk #(.P(P), .KMAX(KMAX), .SW(SW), .TW(TW), .MARGIN(MARGIN)) i_topk (
      .clk(ap_clk), .rst, .load, .k, .in_valid(sum_valid), .in_sum(sums),
      .in_tag(first_tag), .ready(topk_ready), .idle(topk_idle), .drain, .out_valid(top_valid),
      .out_ready(1'b1), .out_found(top_found), .out_sum(top_sum), .out_tag(top_tag),
      .out_rank(top_rank), .out_last(top_last)
  );

  // Results.
  logic        id_valid;
  logic [31:0] id;
  logic [63:0] query_cycles;
  ragrig_ids #(.TW(TW), .DEPTH(IDS_DEPTH)) i_ids (
      .clk(ap_clk), .rst, .stop, .push(top_valid && top_found), .tag(top_tag), .base(ids_base),
      .id_valid, .id, .quiet(unit_quiet[1]), .bad(unit_bad[1]), .arvalid(ar_valid[1]),
      .arready(ar_ready[1]), .araddr(ar_addr[127:64]), .rvalid(r_valid[1]),
      .rdata(m_axi_host_rdata), .rbad(m_axi_host_rresp[1])
  );
  assign ar_len[15:8] = 8'd0;
  ragrig_writer #(.KMAX(KMAX), .SW(SW)) i_writer (
      .clk(ap_clk), .rst, .stop, .k, .address(results_base), .free(writer_free),
      .in_valid(top_valid), .in_found(top_found), .in_sum(top_sum), .in_rank(top_rank),
      .in_last(top_last), .id_valid, .id, .query_cycles, .query_codes, .written,
      .quiet(writer_quiet), .bad(write_bad), .awvalid(m_axi_host_awvalid),
      .awready(m_axi_host_awready), .awaddr(m_axi_host_awaddr), .wvalid(m_axi_host_wvalid),
      .wready(m_axi_host_wready), .wdata(m_axi_host_wdata), .bvalid(m_axi_host_bvalid),
      .bbad(m_axi_host_bresp[1])
  );
  assign m_axi_host_awid    = 2'd0;
  assign m_axi_host_awlen   = 8'd0;
  assign m_axi_host_awsize  = 3'd6;
  assign m_axi_host_awburst = 2'd1;
  assign m_axi_host_wstrb   = {64{1'b1}};
  assign m_axi_host_wlast   = 1'b1;
  assign m_axi_host_bready  = 1'b1;

  assign read_bad = (unit_bad != 0) || (codes_bad != 0);
  assign quiet = (&unit_quiet) && (&codes_quiet) && arbiter_quiet && writer_quiet;

  ragrig_status #(
      .CHANNELS(CHANNELS), .M(M), .LW(LW), .SW(SW), .KMAX(KMAX), .FEATURES(FEATURES), .MACS(MACS),
      .STEPS(STEPS)
  ) i_status (
      .clk(ap_clk), .rst(!ap_rst_n), .begin_i(idle && start), .run, .issue, .query_end,
      .query_codes, .query_cycles, .done(!clear), .written, .stall_memory, .stall_table,
      .stall_topk, .stall_result, .error, .error_query, .status
  );

  /* verilator lint_off UNUSEDSIGNAL */
  logic unused;  // what this build does not look at
  assign unused = ^{m_axi_host_rlast, m_axi_host_rresp, m_axi_host_bid, m_axi_host_bresp,
                    m_axi_codes_rresp, lists_ready, cmd, ar_ready, r_valid, mask_cmd, mask_beat,
                    mask_beats, mask_bits, mask_valid, mask_pop, masks_base, masked,
                    list_start};
  /* verilator lint_on UNUSEDSIGNAL */
endmodule
