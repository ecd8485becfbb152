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

class Clocks {
 public:
  void start_block(int threads);

  /// What this agent does now.
  Access now(Agent agent) const { return {agent, times_[agent.place()]}; }
  /// Whether an access lies before all that the agent does from now on.
  bool is_before(const Access& access, Agent agent);
  /// Whether accesses of several warps, a bit for each, do, the latest of which is at `time`.
  bool are_before(std::uint32_t warps, std::uint32_t time, Agent agent);
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
