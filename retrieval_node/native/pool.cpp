#include "pool.hpp"

#include <stdexcept>
#include <string>

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

namespace ragrig {

struct Pool::Job {
  Job(int64_t count, const Work& what) : tasks(count), work(what) {}

  const int64_t tasks;
  const Work& work;
  std::atomic<int64_t> next{0};
  // Guarded by Pool::mutex_: slots handed out, and helpers still inside.
  int slots = 1;
  int helpers = 0;
  std::condition_variable left;
  std::mutex failure_mutex;
  std::exception_ptr failure;
};

namespace {

void pin(int cpu) {
#if defined(__linux__)
  if (cpu < 0) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(cpu), &set);
  // A core that went away since the check in the constructor costs speed, not results.
  (void)pthread_setaffinity_np(pthread_self(), sizeof set, &set);
#else
  (void)cpu;
#endif
}

void check_cpus(const std::vector<int>& cpus) {
#if defined(__linux__)
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  const bool known = sched_getaffinity(0, sizeof allowed, &allowed) == 0;
#endif
  for (int cpu : cpus) {
    bool good = cpu >= 0;
#if defined(__linux__)
    good = good && cpu < CPU_SETSIZE && (!known || CPU_ISSET(static_cast<size_t>(cpu), &allowed));
#endif
    if (!good)
      throw std::invalid_argument("cpus: this process may not run on cpu " + std::to_string(cpu));
  }
}

}  // namespace

Pool::Pool(int threads, std::vector<int> cpus) : threads_(threads) {
  if (threads < 1 || threads > 1024)
    throw std::invalid_argument("threads: " + std::to_string(threads) + " is not in 1..1024");
  check_cpus(cpus);
  workers_.reserve(static_cast<size_t>(threads - 1));
  for (int i = 1; i < threads; ++i) {
    const int cpu = cpus.empty() ? -1 : cpus[static_cast<size_t>(i) % cpus.size()];
    workers_.emplace_back([this, cpu] { worker(cpu); });
  }
}

Pool::~Pool() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ending_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : workers_) thread.join();
}

void Pool::take_part(Job& job, int slot) {
  for (;;) {
    const int64_t task = job.next.fetch_add(1, std::memory_order_relaxed);
    if (task >= job.tasks) return;
    try {
      job.work(task, slot);
    } catch (...) {
      std::lock_guard<std::mutex> lock(job.failure_mutex);
      if (!job.failure) job.failure = std::current_exception();
    }
  }
}

void Pool::worker(int cpu) {
  pin(cpu);
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return ending_ || !jobs_.empty(); });
    if (ending_) return;
    Job& job = *jobs_.front();
    const int slot = job.slots++;
    // Nobody else can join: every thread has a slot, or every task a taker.
    if (job.slots >= threads_ || job.slots >= job.tasks) jobs_.pop_front();
    ++job.helpers;
    lock.unlock();
    take_part(job, slot);
    lock.lock();
    if (--job.helpers == 0) job.left.notify_one();
  }
}

void Pool::run(int64_t tasks, const Work& work) {
  if (tasks <= 0) return;
  Job job(tasks, work);
  const bool shared = tasks > 1 && threads_ > 1;
  if (shared) {
    std::lock_guard<std::mutex> lock(mutex_);
    jobs_.push_back(&job);
  }
  if (shared) {
    if (tasks == 2) wake_.notify_one();
    else wake_.notify_all();
  }
  take_part(job, 0);
  if (shared) {
    std::unique_lock<std::mutex> lock(mutex_);
    for (auto at = jobs_.begin(); at != jobs_.end(); ++at)
      if (*at == &job) {
        jobs_.erase(at);
        break;
      }
    job.left.wait(lock, [&job] { return job.helpers == 0; });
  }
  if (job.failure) std::rethrow_exception(job.failure);
}

}  // namespace ragrig
