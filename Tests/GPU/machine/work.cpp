// SPDX-License-Identifier: Apache-2.0
#include "work.hpp"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <iterator>
#include <thread>

#include "context.hpp"

namespace gpu {
namespace {

/// What must be done for `work`, itself included, as far as it is not.
void collect(const WorkPointer& work, std::vector<WorkPointer>& found) {
  if (work == nullptr || work->is_done || std::find(found.begin(), found.end(), work) != found.end()) return;
  found.push_back(work);
  for (const WorkPointer& each : work->before) collect(each, found);
}

/// Of the schedule that has a worker. When the process exits, what kernels stand on goes.
std::mutex* gate = nullptr;
bool is_over = false;

void stop_worker() {
  const std::lock_guard<std::mutex> lock(*gate);
  is_over = true;
}

}  // namespace

bool Work::is_ready() const {
  return std::all_of(before.begin(), before.end(), [](const WorkPointer& each) { return each->is_done; });
}

Schedule::Schedule(std::mutex& mutex, const Settings& settings)
    : mutex_(mutex), mode_(settings.work), random_(settings.seed) {}

void Schedule::add(const WorkPointer& work) {
  pending_.push_back(work);
  if (mode_ == WorkMode::worker && !has_worker_) start_worker();
}

WorkPointer Schedule::any_ready(const std::vector<WorkPointer>& candidates) {
  std::vector<WorkPointer> ready;
  for (const WorkPointer& each : candidates) {
    if (!each->is_done && each->is_ready()) ready.push_back(each);
  }
  return ready.empty() ? nullptr : ready[random_() % ready.size()];
}

void Schedule::carry_out(const WorkPointer& work) {
  if (work->action && work->context->error() == CUDA_SUCCESS) work->action();
  work->is_done = true;
  work->action = nullptr;
  work->before.clear();
  pending_.erase(std::find(pending_.begin(), pending_.end(), work));
}

void Schedule::wait(const std::vector<WorkPointer>& awaited) {
  for (;;) {
    std::vector<WorkPointer> needed;
    for (const WorkPointer& each : awaited) collect(each, needed);
    if (needed.empty()) return;
    carry_out(any_ready(mode_ == WorkMode::late ? needed : pending_));
  }
}

void Schedule::wait_for_all_of(const Context* context) {
  std::vector<WorkPointer> found;
  std::copy_if(pending_.begin(), pending_.end(), std::back_inserter(found),
               [&](const WorkPointer& each) { return each->context == context; });
  wait(found);
}

void Schedule::drop_all_of(const Context* context) {
  for (auto each = pending_.begin(); each != pending_.end();) {
    if ((*each)->context == context) {
      (*each)->is_done = true;
      (*each)->before.clear();
      each = pending_.erase(each);
    } else {
      ++each;
    }
  }
}

/// Lives as long as the process; the machine is never taken apart.
void Schedule::start_worker() {
  has_worker_ = true;
  gate = &mutex_;
  std::atexit(stop_worker);
  std::thread([this] {
    std::minstd_rand pauses(1);
    for (;;) {
      std::this_thread::sleep_for(std::chrono::microseconds(pauses() % 300));
      const std::lock_guard<std::mutex> lock(mutex_);
      if (is_over) return;
      if (const WorkPointer work = any_ready(pending_)) carry_out(work);
    }
  }).detach();
}

}  // namespace gpu
