#include "clocks.hpp"

#include <algorithm>
#include <iterator>

namespace SoftwareGPU {

void Clock::join(const Clock& other) {
  for (int i = 0; i < places; ++i) until[i] = std::max(until[i], other.until[i]);
}

void Clocks::start_block(int threads) {
  threads_ = threads;
  std::fill(std::begin(times_), std::end(times_), 1u);
  std::fill(known_, known_ + threads, Clock{});
  std::fill(std::begin(is_valid_), std::end(is_valid_), false);
}

const Clock& Clocks::known_to(Agent agent) {
  if (agent.is_thread()) return known_[agent.index()];
  const int warp = agent.place() % most_warps;
  Clock& all = known_to_warp_[warp];
  if (is_valid_[warp]) return all;
  all = known_[warp * lanes];
  for (int lane = 1; lane < lanes; ++lane)
    for (int i = 0; i < Clock::places; ++i) all.until[i] = std::min(all.until[i], known_[warp * lanes + lane].until[i]);
  is_valid_[warp] = true;
  return all;
}

void Clocks::meet(std::uint32_t warps) {
  Clock all;
  std::uint32_t latest = 0;
  for (int warp = 0; warp < threads_ / lanes; ++warp) {
    if ((warps >> warp & 1) == 0) continue;
    for (int lane = 0; lane < lanes; ++lane) all.join(known_[warp * lanes + lane]);
    latest = std::max(latest, times_[warp]);
  }
  // Later than all that any of them has done: the times of those that meet are the same.
  for (int warp = 0; warp < threads_ / lanes; ++warp)
    if ((warps >> warp & 1) != 0) all.until[warp] = latest;
  for (int warp = 0; warp < threads_ / lanes; ++warp) {
    if ((warps >> warp & 1) == 0) continue;
    std::fill(known_ + warp * lanes, known_ + (warp + 1) * lanes, all);
    times_[warp] = latest + 1;
    is_valid_[warp] = false;
  }
}

void Clocks::release_warp(int warp, Clock& into) {
  into.until[warp] = std::max(into.until[warp], times_[warp]);
  ++times_[warp];
}

void Clocks::acquire(int thread, const Clock& from) {
  known_[thread].join(from);
  is_valid_[thread / lanes] = false;
}

void Clocks::finish(Agent agent, int warp) {
  const std::uint32_t time = times_[agent.place()]++;
  for (int lane = 0; lane < lanes; ++lane) known_[warp * lanes + lane].until[agent.place()] = time;
  is_valid_[warp] = false;
}

}  // namespace SoftwareGPU
