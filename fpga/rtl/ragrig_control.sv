// The control port (AXI4-Lite): ap_ctrl_hs block, arguments, build and status registers.
//
//   args           the arguments from 0x010 on, 32 bits each: register r at ((r - 0x10) / 4) * 32
//   codes, biases  base address of each channel's codes, and of their biases where BIASES is 1
//   start          the host asked for a start; finish: it has ended
//   status         registers from 0x300 on, in the same way
//   interrupt      global enable and an enabled event
//
// One access at a time: a write takes three cycles, a read two.
module ragrig_control #(
    parameter int CHANNELS = 1,
    parameter bit BIASES = 1'b0,
    localparam int ARGS = 25,
    localparam int STATUS = 28
) (
    input  logic                   clk,
    input  logic                   rst,
    /* verilator lint_off UNUSEDSIGNAL */
    input  logic [11:0]            s_axi_awaddr,  // of words
    input  logic                   s_axi_awvalid,
    output logic                   s_axi_awready,
    input  logic [31:0]            s_axi_wdata,
    input  logic [3:0]             s_axi_wstrb,
    input  logic                   s_axi_wvalid,
    output logic                   s_axi_wready,
    output logic [1:0]             s_axi_bresp,
    output logic                   s_axi_bvalid,
    input  logic                   s_axi_bready,
    input  logic [11:0]            s_axi_araddr,
    /* verilator lint_on UNUSEDSIGNAL */
    input  logic                   s_axi_arvalid,
    output logic                   s_axi_arready,
    output logic [31:0]            s_axi_rdata,
    output logic [1:0]             s_axi_rresp,
    output logic                   s_axi_rvalid,
    input  logic                   s_axi_rready,
    output logic                   interrupt,
    output logic [ARGS*32-1:0]     args,
    output logic [CHANNELS*64-1:0] codes,
    output logic [CHANNELS*64-1:0] biases,
    output logic                   start,
    input  logic                   finish,
    input  logic                   idle,
    input  logic [STATUS*32-1:0]   status
);
  localparam int CODES = 32'(ragrig_regs_pkg::REG_CODES);
  localparam int OWN = 32'(ragrig_regs_pkg::REG_BIASES);
  logic        write, read, done_q, gie_q;
  logic [1:0]  ier_q, isr_q;
  logic [11:0] waddr, raddr;
  logic [31:0] mask, found;
  logic [31:0] at_arg, at_codes, at_biases, at_status;  // words from the start of each range

  // Both halves of a write are taken together.
  assign write = s_axi_awvalid && s_axi_wvalid && (!s_axi_bvalid || s_axi_bready) && !s_axi_awready;
  assign read  = s_axi_arvalid && (!s_axi_rvalid || s_axi_rready) && !s_axi_arready;
  assign waddr = {s_axi_awaddr[11:2], 2'b00};
  assign raddr = {s_axi_araddr[11:2], 2'b00};
  assign mask  = {{8{s_axi_wstrb[3]}}, {8{s_axi_wstrb[2]}}, {8{s_axi_wstrb[1]}}, {8{s_axi_wstrb[0]}}};
  assign s_axi_bresp = 2'b00;
  assign s_axi_rresp = 2'b00;
  assign interrupt   = gie_q && (isr_q != 0);

  always_ff @(posedge clk) begin
    if (rst) begin
      s_axi_awready <= 1'b0;
      s_axi_wready  <= 1'b0;
      s_axi_bvalid  <= 1'b0;
      s_axi_arready <= 1'b0;
      s_axi_rvalid  <= 1'b0;
    end else begin
      s_axi_awready <= write;
      s_axi_wready  <= write;
      s_axi_bvalid  <= s_axi_awready || (s_axi_bvalid && !s_axi_bready);
      s_axi_arready <= read;
      s_axi_rvalid  <= s_axi_arready || (s_axi_rvalid && !s_axi_rready);
    end
  end

  genvar i;
  generate
    for (i = 0; i < ARGS; i = i + 1) begin : g_arg
      always_ff @(posedge clk) begin
        if (rst) args[i*32+:32] <= '0;
        else if (write && (waddr == 12'(16 + 4 * i)))
          args[i*32+:32] <= (args[i*32+:32] & ~mask) | (s_axi_wdata & mask);
      end
    end
    for (i = 0; i < 2 * CHANNELS; i = i + 1) begin : g_codes
      always_ff @(posedge clk) begin
        if (rst) codes[i*32+:32] <= '0;
        else if (write && (waddr == 12'(CODES + 4 * i)))
          codes[i*32+:32] <= (codes[i*32+:32] & ~mask) | (s_axi_wdata & mask);
      end
    end
    for (i = 0; i < 2 * CHANNELS; i = i + 1) begin : g_biases
      if (BIASES) begin : g_bias
        always_ff @(posedge clk) begin
          if (rst) biases[i*32+:32] <= '0;
          else if (write && (waddr == 12'(OWN + 4 * i)))
            biases[i*32+:32] <= (biases[i*32+:32] & ~mask) | (s_axi_wdata & mask);
        end
      end else assign biases[i*32+:32] = '0;
    end
  endgenerate

  // ap_ctrl_hs: start holds until the end, done and ready until they are read.
  logic own, take_done;
  assign own       = write && s_axi_wstrb[0];
  assign take_done = read && (raddr == ragrig_regs_pkg::REG_CTRL);
  always_ff @(posedge clk) begin
    if (rst) begin
      start  <= 1'b0;
      done_q <= 1'b0;
      gie_q  <= 1'b0;
      ier_q  <= '0;
      isr_q  <= '0;
    end else begin
      if (own && (waddr == ragrig_regs_pkg::REG_CTRL) && s_axi_wdata[ragrig_regs_pkg::CTRL_START_BIT]
          && idle)
        start <= 1'b1;
      else if (finish) start <= 1'b0;
      done_q <= finish || (done_q && !take_done && !(start && idle));
      if (own && (waddr == ragrig_regs_pkg::REG_GIE)) gie_q <= s_axi_wdata[0];
      if (own && (waddr == ragrig_regs_pkg::REG_IER)) ier_q <= s_axi_wdata[1:0];
      if (own && (waddr == ragrig_regs_pkg::REG_ISR)) isr_q <= isr_q ^ s_axi_wdata[1:0];
      else isr_q <= isr_q | (ier_q & {2{finish}});
    end
  end

  assign at_arg    = (32'(raddr) - 32'h010) >> 2;
  assign at_codes  = (32'(raddr) - CODES) >> 2;
  assign at_biases = (32'(raddr) - OWN) >> 2;
  assign at_status = (32'(raddr) - 32'(ragrig_regs_pkg::REG_VERSION)) >> 2;
  always_comb begin
    found = '0;
    if (raddr == ragrig_regs_pkg::REG_CTRL) begin
      found[ragrig_regs_pkg::CTRL_START_BIT] = start;
      found[ragrig_regs_pkg::CTRL_DONE_BIT]  = done_q;
      found[ragrig_regs_pkg::CTRL_IDLE_BIT]  = idle && !start;
      found[ragrig_regs_pkg::CTRL_READY_BIT] = done_q;
    end else if (raddr == ragrig_regs_pkg::REG_GIE) found = {31'd0, gie_q};
    else if (raddr == ragrig_regs_pkg::REG_IER) found = {30'd0, ier_q};
    else if (raddr == ragrig_regs_pkg::REG_ISR) found = {30'd0, isr_q};
    else if ((raddr >= 12'h010) && (raddr < 12'(16 + 4 * ARGS)))
      found = args[at_arg*32+:32];
    else if ((raddr >= 12'(CODES)) && (raddr < 12'(CODES + 8 * CHANNELS)))
      found = codes[at_codes*32+:32];
    else if ((raddr >= 12'(OWN)) && (raddr < 12'(OWN + 8 * CHANNELS)))
      found = biases[at_biases*32+:32];
    else if ((raddr >= ragrig_regs_pkg::REG_VERSION)
             && (raddr < ragrig_regs_pkg::REG_VERSION + 12'(4 * STATUS)))
      found = status[at_status*32+:32];
  end
  always_ff @(posedge clk) if (read) s_axi_rdata <= found;
endmodule
