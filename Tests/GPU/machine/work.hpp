// Work for the devices, and when it is done.
//
// A piece of work knows which others come before it. Nothing is done at once: where it is
// waited for, what has to come before it is done first, in any order that these rules allow
// (by a seed); in other modes, other work as well, or all of it by a thread at any moment.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <vector>

#include "settings.hpp"

namespace gpu {

class Context;
struct Work;
using WorkPointer = std::shared_ptr<Work>;

struct Work {
  /// Whose it is: where a context has failed, the rest of its work is dropped.
  Context* context;
  std::vector<WorkPointer> before;
  /// Empty: nothing, but something to wait for.
  std::function<void()> action;
  bool is_done = false;

  bool is_ready() const;
};

class Schedule {
 public:
  /// `mutex` is held by whoever calls.
  Schedule(std::mutex& mutex, const Settings& settings);

  void add(const WorkPointer& work);
  /// Until all of this is done.
  void wait(const std::vector<WorkPointer>& awaited);
  void wait_for_all_of(const Context* context);
  void drop_all_of(const Context* context);
  void seed(unsigned seed) { random_.seed(seed); }
  /// The next of its random numbers.
  unsigned any() { return static_cast<unsigned>(random_()); }

 private:
  WorkPointer any_ready(const std::vector<WorkPointer>& candidates);
  void carry_out(const WorkPointer& work);
  void start_worker();

  std::mutex& mutex_;
  const WorkMode mode_;
  std::mt19937 random_;
  /// Not done yet.
  std::vector<WorkPointer> pending_;
  bool has_worker_ = false;
};

}  // namespace gpu
