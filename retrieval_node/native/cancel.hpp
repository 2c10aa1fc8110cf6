// Stops a search between pieces of work.
#pragma once

#include <atomic>
#include <chrono>
#include <limits>

namespace ragrig {

// Why a search ended before its end.
enum class Stop : int { none = 0, cancelled, deadline, corrupt };

inline const char* stop_name(Stop stop) {
  switch (stop) {
    case Stop::cancelled: return "cancelled";
    case Stop::deadline: return "deadline";
    case Stop::corrupt: return "corrupt";
    case Stop::none: break;
  }
  return "";
}

class Cancel {
 public:
  // Seconds on the monotonic clock (Python's time.monotonic()); infinity: none.
  explicit Cancel(double deadline_s = std::numeric_limits<double>::infinity())
      : deadline_s_(deadline_s) {}

  void set() { set_.store(true, std::memory_order_relaxed); }

  // Cheap enough for once per list: a load, and a clock read where there is a deadline.
  Stop check() const {
    if (set_.load(std::memory_order_relaxed)) return Stop::cancelled;
    if (deadline_s_ == std::numeric_limits<double>::infinity()) return Stop::none;
    return now_s() < deadline_s_ ? Stop::none : Stop::deadline;
  }

 private:
  static double now_s() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double>(now).count();
  }

  std::atomic<bool> set_{false};
  double deadline_s_;
};

}  // namespace ragrig
