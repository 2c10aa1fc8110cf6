#include "linear.hpp"

#include <algorithm>
#include <vector>

#include "team.hpp"

namespace ragrig {
namespace {

// Weights that are worth a task of their own, and x that is worth a second thread.
constexpr int64_t kTaskWeights = 1 << 15;
constexpr int64_t kTurnFloats = 1 << 15;
// Rows of results are turned around in panels of so many.
constexpr int64_t kRows = 48;

}  // namespace

void linear(Linear job, const Ops& ops, int threads) {
  const size_t floats = static_cast<size_t>(ops.turned_floats(job.tokens, job.in));
  if (floats > 0) {
    thread_local std::vector<float> turned;
    if (turned.size() < floats) turned.resize(floats);
    job.turned = turned.data();
    const int turners = job.tokens * job.in < kTurnFloats ? 1 : threads;
    run_team(ops.turn_tasks(job.tokens), turners, [&](int64_t task) { ops.turn(job, task); });
  }
  const int64_t panels = std::max<int64_t>(1, kTaskWeights / (kRows * job.in));
  const int64_t rows = panels * kRows;
  run_team((job.out + rows - 1) / rows, threads, [&](int64_t task) {
    ops.linear(job, task * rows, std::min(rows, job.out - task * rows));
  });
}

}  // namespace ragrig
