// Runs tasks on the threads that torch uses already: a second set of them would
// stand in the way of the first.
#pragma once

#include <cstdint>
#include <functional>

namespace ragrig {

// task: 0 .. tasks - 1, each once, on up to `threads` threads, the caller among
// them. Where torch brought no OpenMP runtime the caller does all of them. The
// first exception of a task is thrown again, after the others have ended.
void run_team(int64_t tasks, int threads, const std::function<void(int64_t task)>& work);

}  // namespace ragrig
