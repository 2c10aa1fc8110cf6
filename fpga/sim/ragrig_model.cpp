// ragrig_core behind AXI4 memory, as a library: a process maps memory, reads and writes registers
// over AXI4-Lite, and lets cycles pass. Verilator makes Vragrig_core.h of fpga/rtl.
//
// Memory answers a burst `latency` cycles after its address, then a beat per cycle for
// `beats_per_1024` of 1024 cycles; a share of cycles (`pauses_per_1024`, random, for tests) takes
// no address and gives no beat. What is not mapped answers SLVERR.

#include <array>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <random>

#include "Vragrig_core.h"
#include "verilated.h"

#ifndef CHANNELS
#error "CHANNELS is the build's"
#endif

namespace {

constexpr uint32_t kBeat = 64, kWords = kBeat / 4;
constexpr uint8_t kOkay = 0, kSlaveError = 2;
enum Fault : uint32_t { kNone = 0, kHang = 1, kReadError = 2, kWriteError = 3 };

// Ports are integers up to 64 bits and arrays of words beyond: the same access for both.
template <class T>
uint32_t word_of(const T& port, uint32_t i) { return static_cast<uint32_t>(uint64_t(port) >> (32 * i)); }
template <std::size_t N>
uint32_t word_of(const VlWide<N>& port, uint32_t i) { return port[i]; }
template <class T>
uint32_t bits_of(const T& port, uint32_t at, uint32_t width) {
  return (word_of(port, at / 32) >> (at % 32)) & ((1U << width) - 1);  // none straddles words
}
template <class T>
void put_bits(T& port, uint32_t at, uint32_t width, uint32_t value) {
  const uint64_t mask = ((uint64_t{1} << width) - 1) << at;
  port = static_cast<T>((uint64_t(port) & ~mask) | ((uint64_t(value) << at) & mask));
}
template <std::size_t N>
void put_bits(VlWide<N>& port, uint32_t at, uint32_t width, uint32_t value) {
  const uint32_t mask = ((1U << width) - 1) << (at % 32);
  port[at / 32] = (port[at / 32] & ~mask) | ((value << (at % 32)) & mask);
}

struct Timing {
  uint32_t latency, beats_per_1024, pauses_per_1024;
};

class Memory {
 public:
  void map(uint64_t base, uint8_t* bytes, uint64_t size) { regions_[base] = {bytes, size}; }
  void unmap(uint64_t base) { regions_.erase(base); }
  // The beat at an address, or null.
  uint8_t* find(uint64_t address) const {
    auto after = regions_.upper_bound(address);
    if (after == regions_.begin()) return nullptr;
    const auto& [base, region] = *--after;
    return address - base + kBeat <= region.size ? region.bytes + (address - base) : nullptr;
  }

 private:
  struct Region {
    uint8_t* bytes;
    uint64_t size;
  };
  std::map<uint64_t, Region> regions_;
};

// One read port of the memory.
class ReadPort {
 public:
  void clear() { bursts_.clear(), credit_ = 0; }
  void take(uint64_t address, uint32_t beats, uint32_t id, uint64_t due) {
    bursts_.push_back({address, beats, id, due});
  }
  struct Beat {
    uint64_t address;
    uint32_t id;
    bool last;
  };
  // The beat of this cycle; false: none.
  bool give(uint64_t now, uint32_t beats_per_1024, Beat& beat) {
    credit_ = std::min(credit_ + beats_per_1024, 2048U);
    if (bursts_.empty() || bursts_.front().due > now || credit_ < 1024) return false;
    credit_ -= 1024;
    Burst& burst = bursts_.front();
    beat = {burst.address, burst.id, burst.beats == 1};
    burst.address += kBeat;
    if (--burst.beats == 0) bursts_.pop_front();
    return true;
  }

 private:
  struct Burst {
    uint64_t address;
    uint32_t beats, id;
    uint64_t due;
  };
  std::deque<Burst> bursts_;
  uint32_t credit_ = 0;
};

class Model {
 public:
  Model(Timing timing, uint64_t seed) : timing_(timing), random_(seed) { reset(); }
  ~Model() { top_.final(); }

  void reset() {
    host_.clear(), writes_.clear(), data_.clear(), answers_.clear();
    for (ReadPort& port : codes_) port.clear();
    fault_ = kNone, awaited_ = kNone;
    top_.ap_rst_n = 0;
    idle_inputs();
    for (int i = 0; i < 4; ++i) cycle();
    top_.ap_rst_n = 1;
    for (int i = 0; i < 2; ++i) cycle();
  }

  void write(uint32_t offset, uint32_t value) {
    top_.s_axi_control_awaddr = offset, top_.s_axi_control_wdata = value;
    top_.s_axi_control_wstrb = 15, top_.s_axi_control_bready = 1;
    top_.s_axi_control_awvalid = top_.s_axi_control_wvalid = 1;
    top_.eval();
    while (!took([this] { return top_.s_axi_control_awready; })) {}
    top_.s_axi_control_awvalid = top_.s_axi_control_wvalid = 0;
    top_.eval();
    while (!took([this] { return top_.s_axi_control_bvalid; })) {}
    top_.s_axi_control_bready = 0;
    top_.eval();
  }

  uint32_t read(uint32_t offset) {
    uint32_t value = 0;
    top_.s_axi_control_araddr = offset, top_.s_axi_control_arvalid = 1;
    top_.s_axi_control_rready = 1;
    top_.eval();
    while (!took([this] { return top_.s_axi_control_arready; })) {}
    top_.s_axi_control_arvalid = 0;
    top_.eval();
    while (!took([&] { value = top_.s_axi_control_rdata; return top_.s_axi_control_rvalid; })) {}
    top_.s_axi_control_rready = 0;
    top_.eval();
    return value;
  }

  // Until nothing runs, or so many cycles; the cycles that passed.
  uint64_t run(uint64_t most) {
    uint64_t passed = 0;
    while (passed < most && !top_.idle_o && !Verilated::gotFinish()) cycle(), ++passed;
    return passed;
  }

  void fault(uint32_t which) { awaited_ = static_cast<Fault>(which); }
  bool idle() const { return top_.idle_o; }
  Memory memory;

 private:
  // One cycle; whether the signal was high at its end.
  template <class F>
  bool took(F signal) {
    const bool high = signal() != 0;
    cycle();
    return high || Verilated::gotFinish();
  }

  void idle_inputs() {
    top_.s_axi_control_awvalid = top_.s_axi_control_wvalid = top_.s_axi_control_bready = 0;
    top_.s_axi_control_arvalid = top_.s_axi_control_rready = 0;
    top_.m_axi_host_arready = top_.m_axi_host_awready = top_.m_axi_host_wready = 0;
    top_.m_axi_host_rvalid = top_.m_axi_host_bvalid = 0;
    for (uint32_t c = 0; c < CHANNELS; ++c) {
      put_bits(top_.m_axi_codes_arready, c, 1, 0);
      put_bits(top_.m_axi_codes_rvalid, c, 1, 0);
    }
  }

  bool pauses() {
    return timing_.pauses_per_1024 != 0 && (random_() & 1023) < timing_.pauses_per_1024;
  }

  void cycle() {
    sample();
    top_.ap_clk = 1;
    top_.eval();
    ++now_;
    answer();
    top_.ap_clk = 0;
    top_.eval();
  }

  // What the core says at the end of a cycle. Beats and answers are always taken at once.
  void sample() {
    if (!top_.ap_rst_n) return;
    const uint64_t due = now_ + timing_.latency;
    if (top_.m_axi_host_arvalid && top_.m_axi_host_arready)
      host_.take(top_.m_axi_host_araddr, top_.m_axi_host_arlen + 1U, top_.m_axi_host_arid, due);
    for (uint32_t c = 0; c < CHANNELS; ++c)
      if (bits_of(top_.m_axi_codes_arvalid, c, 1) && bits_of(top_.m_axi_codes_arready, c, 1))
        codes_[c].take(uint64_t(word_of(top_.m_axi_codes_araddr, 2 * c + 1)) << 32
                           | word_of(top_.m_axi_codes_araddr, 2 * c),
                       bits_of(top_.m_axi_codes_arlen, 8 * c, 8) + 1,
                       bits_of(top_.m_axi_codes_arid, c, 1), due);
    if (top_.m_axi_host_awvalid && top_.m_axi_host_awready)
      writes_.push_back(top_.m_axi_host_awaddr);
    if (top_.m_axi_host_wvalid && top_.m_axi_host_wready) {
      data_.emplace_back();
      for (uint32_t i = 0; i < kWords; ++i) data_.back()[i] = top_.m_axi_host_wdata[i];
    }
    while (!writes_.empty() && !data_.empty()) store(due);
  }

  void store(uint64_t due) {
    uint8_t* beat = memory.find(writes_.front());
    const bool bad = beat == nullptr || meets(kWriteError);
    if (!bad) std::memcpy(beat, data_.front().data(), kBeat);
    answers_.push_back({due, bad ? kSlaveError : kOkay});
    writes_.pop_front(), data_.pop_front();
  }

  // Whether the fault that was asked for happens now.
  bool meets(Fault which) {
    if (awaited_ != which) return false;
    awaited_ = kNone;
    return true;
  }

  // What the memory says in the next cycle.
  void answer() {
    if (!top_.ap_rst_n) return;
    top_.m_axi_host_arready = !pauses();
    top_.m_axi_host_awready = !pauses();
    top_.m_axi_host_wready = !pauses();
    top_.m_axi_host_bvalid = 0;
    if (!answers_.empty() && answers_.front().due <= now_ && !pauses()) {
      top_.m_axi_host_bvalid = 1, top_.m_axi_host_bresp = answers_.front().response;
      answers_.pop_front();
    }
    if (meets(kHang)) fault_ = kHang;
    ReadPort::Beat beat;
    const bool here = given(host_, beat);
    top_.m_axi_host_rvalid = here;
    if (here) {
      top_.m_axi_host_rid = beat.id, top_.m_axi_host_rlast = beat.last;
      top_.m_axi_host_rresp = fetch(beat.address, top_.m_axi_host_rdata, 0);
    }
    for (uint32_t c = 0; c < CHANNELS; ++c) {
      put_bits(top_.m_axi_codes_arready, c, 1, !pauses());
      const bool there = given(codes_[c], beat);
      put_bits(top_.m_axi_codes_rvalid, c, 1, there);
      if (!there) continue;
      put_bits(top_.m_axi_codes_rid, c, 1, beat.id);
      put_bits(top_.m_axi_codes_rresp, 2 * c, 2,
               fetch(beat.address, top_.m_axi_codes_rdata, c * kWords));
    }
  }

  bool given(ReadPort& port, ReadPort::Beat& beat) {
    return fault_ != kHang && !pauses() && port.give(now_, timing_.beats_per_1024, beat);
  }

  template <std::size_t N>
  uint8_t fetch(uint64_t address, VlWide<N>& port, uint32_t at) {
    const uint8_t* bytes = memory.find(address);
    if (bytes == nullptr || meets(kReadError)) return kSlaveError;
    std::memcpy(&port[at], bytes, kBeat);
    return kOkay;
  }

  struct Answer {
    uint64_t due;
    uint8_t response;
  };
  Vragrig_core top_;
  Timing timing_;
  std::mt19937_64 random_;
  uint64_t now_ = 0;
  Fault fault_ = kNone, awaited_ = kNone;
  ReadPort host_;
  std::array<ReadPort, CHANNELS> codes_;
  std::deque<uint64_t> writes_;
  std::deque<std::array<uint32_t, kWords>> data_;
  std::deque<Answer> answers_;
};

}  // namespace

extern "C" {

void* ragrig_new(uint32_t latency, uint32_t beats_per_1024, uint32_t pauses_per_1024, uint64_t seed) {
  return new Model({latency, beats_per_1024, pauses_per_1024}, seed);
}
void ragrig_delete(void* model) { delete static_cast<Model*>(model); }
void ragrig_reset(void* model) { static_cast<Model*>(model)->reset(); }
void ragrig_map(void* model, uint64_t base, uint8_t* bytes, uint64_t size) {
  static_cast<Model*>(model)->memory.map(base, bytes, size);
}
void ragrig_unmap(void* model, uint64_t base) { static_cast<Model*>(model)->memory.unmap(base); }
void ragrig_write(void* model, uint32_t offset, uint32_t value) {
  static_cast<Model*>(model)->write(offset, value);
}
uint32_t ragrig_read(void* model, uint32_t offset) { return static_cast<Model*>(model)->read(offset); }
uint64_t ragrig_run(void* model, uint64_t most) { return static_cast<Model*>(model)->run(most); }
uint32_t ragrig_idle(void* model) { return static_cast<Model*>(model)->idle(); }
void ragrig_fault(void* model, uint32_t which) { static_cast<Model*>(model)->fault(which); }
// Whether a check inside the core failed.
uint32_t ragrig_failed() { return Verilated::gotFinish(); }
}
