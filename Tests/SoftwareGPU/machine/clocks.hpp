// What has happened before what: who knows of whose accesses to shared memory.
#pragma once

#include <cstdint>

namespace SoftwareGPU {

constexpr int lanes = 32, most_threads = 1024, most_warps = most_threads / lanes, most_mbarriers = 32;

/// Whose doing an access is: a thread's; a warp's as one, by an instruction of all its
/// lanes; that of a warp's asynchronous products; that of copies that an mbarrier counts.
class Agent {
 public:
  static constexpr Agent nobody() { return Agent(-1); }
  static constexpr Agent thread(int index) { return Agent(index); }
  static constexpr Agent warp(int index) { return Agent(most_threads + index); }
  static constexpr Agent products(int warp) { return Agent(most_threads + most_warps + warp); }
  static constexpr Agent copies(int mbarrier) { return Agent(most_threads + 2 * most_warps + mbarrier); }
  /// Threads of several warps.
  static constexpr Agent several() { return Agent(-2); }

  bool is_nobody() const { return value_ == -1; }
  bool is_several() const { return value_ == -2; }
  bool is_thread() const { return value_ >= 0 && value_ < most_threads; }
  bool is_copies() const { return value_ >= most_threads + 2 * most_warps; }
  int index() const { return value_; }
  /// Its place in a clock: threads have their warp's.
  int place() const { return is_thread() ? value_ / lanes : value_ - most_threads; }
  bool operator==(Agent other) const { return value_ == other.value_; }

 private:
  explicit constexpr Agent(int value) : value_(static_cast<std::int16_t>(value)) {}
  std::int16_t value_;
};

struct Access {
  Agent agent = Agent::nobody();
  /// Of its place in the clocks.
  std::uint32_t time = 0;
};

/// By place: up to which time what was done there lies before.
struct Clock {
  static constexpr int places = 2 * most_warps + most_mbarriers;
  std::uint32_t until[places] = {};

  void join(const Clock& other);
};

/// What lies before all that an agent does.
struct View {
  Agent agent;
  const Clock& known;

  bool is_before(const Access& access) const {
    if (access.agent.is_nobody()) return true;
    // In the order of its program, unless others of the warp share in it.
    if (access.agent == agent && agent.is_thread()) return true;
    return known.until[access.agent.place()] >= access.time;
  }
  /// Of accesses of several warps, a bit for each, the latest of which is at `time`.
  bool are_before(std::uint32_t warps, std::uint32_t time) const {
    for (; warps != 0; warps &= warps - 1)
      if (known.until[__builtin_ctz(warps)] < time) return false;
    return true;
  }
};

class Clocks {
 public:
  void start_block(int threads);

  /// What this agent does now.
  Access now(Agent agent) const { return {agent, times_[agent.place()]}; }
  /// What it knows, until anything is made known to it.
  View view_of(Agent agent) { return {agent, known_to(agent)}; }
  /// All threads of these warps meet.
  void meet(std::uint32_t warps);

  /// A thread makes known what it has done: to whoever takes `into`. Of other lanes of its
  /// warp it knows up to their last meeting.
  void release(int thread, Clock& into) const { into.join(known_[thread]); }
  /// As if all lanes of the warp did.
  void release_warp(int warp, Clock& into);
  void acquire(int thread, const Clock& from);
  /// What the agent has done until now is known to the lanes of this warp.
  void finish(Agent agent, int warp);

 private:
  const Clock& known_to(Agent agent);

  int threads_ = 0;
  std::uint32_t times_[Clock::places];
  Clock known_[most_threads];
  /// What all lanes know, where `is_valid_`.
  Clock known_to_warp_[most_warps];
  bool is_valid_[most_warps];
};

}  // namespace SoftwareGPU
