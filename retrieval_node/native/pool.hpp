// A fixed pool of worker threads. No OpenMP: its runtimes spin against those
// of torch and faiss in the same process.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace ragrig {

class Pool {
 public:
  // task: 0 .. tasks - 1, each once. slot: 0 .. threads() - 1, never two at a
  // time with the same one within a job: it indexes scratch memory.
  using Work = std::function<void(int64_t task, int slot)>;

  // The calling thread of run() is one of `threads`. cpus: worker i is pinned
  // to cpus[i % size]; worker 0 is the caller, who is left alone.
  explicit Pool(int threads, std::vector<int> cpus = {});
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return threads_; }

  // Returns when all tasks are done; the first exception of a task is thrown
  // again, after the others have ended. Any number of callers at once.
  void run(int64_t tasks, const Work& work);

 private:
  struct Job;
  void worker(int cpu);
  static void take_part(Job& job, int slot);

  int threads_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job*> jobs_;  // with tasks not yet handed out; oldest first
  bool ending_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace ragrig
