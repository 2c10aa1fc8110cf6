#include "team.hpp"

#include <atomic>
#include <exception>
#include <mutex>

#if defined(__unix__) || defined(__APPLE__)
#include <dlfcn.h>
#define RAGRIG_HAS_DL 1
#else
#define RAGRIG_HAS_DL 0
#endif

namespace ragrig {
namespace {

// GCC's entry to a parallel region; LLVM's runtime has it too.
using Parallel = void (*)(void (*body)(void*), void* data, unsigned threads, unsigned flags);

// torch makes its OpenMP runtime visible to the whole process. Not linked: the
// linker would bring the system's runtime, a second one.
Parallel find_parallel() {
#if RAGRIG_HAS_DL
  return reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
#else
  return nullptr;
#endif
}

struct Job {
  int64_t tasks;
  const std::function<void(int64_t)>& work;
  std::atomic<int64_t> next{0};
  std::mutex mutex;
  std::exception_ptr failure;
};

void take_part(void* data) {
  Job& job = *static_cast<Job*>(data);
  for (;;) {
    const int64_t task = job.next.fetch_add(1, std::memory_order_relaxed);
    if (task >= job.tasks) return;
    try {
      job.work(task);
    } catch (...) {
      std::lock_guard<std::mutex> lock(job.mutex);
      if (!job.failure) job.failure = std::current_exception();
    }
  }
}

}  // namespace

void run_team(int64_t tasks, int threads, const std::function<void(int64_t)>& work) {
  static const Parallel parallel = find_parallel();
  Job job{tasks, work, {}, {}, {}};
  if (tasks > 1 && threads > 1 && parallel != nullptr) {
    parallel(&take_part, &job, static_cast<unsigned>(threads), 0);
  } else {
    take_part(&job);
  }
  if (job.failure) std::rethrow_exception(job.failure);
}

}  // namespace ragrig
