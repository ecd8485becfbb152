// A block's shared memory, and who may touch which of its bytes.
//
// Two accesses to a cell of two bytes, one of them a write, are a race unless they are of
// one thread or ordered by a barrier: of the block, or, within a warp, of the warp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "../include/SoftwareGPU/site.hpp"

namespace SoftwareGPU {

/// Who touches memory: a thread, or a warp as one, by an instruction of all its lanes.
class Agent {
 public:
  static constexpr Agent thread(int index) { return Agent(index); }
  static constexpr Agent warp(int index) { return Agent(-1 - index); }
  static constexpr Agent nobody() { return Agent(none); }
  /// Threads of several warps.
  static constexpr Agent several() { return Agent(many); }

  bool is_thread() const { return value_ >= 0; }
  bool is_nobody() const { return value_ == none; }
  /// Of nobody and several: of no warp.
  int warp_index() const { return value_ >= 0 ? value_ / 32 : -1 - value_; }
  bool operator==(Agent other) const { return value_ == other.value_; }

 private:
  explicit constexpr Agent(int value) : value_(static_cast<std::int16_t>(value)) {}
  static constexpr int none = -1000, many = -1001;
  std::int16_t value_;
};

class SharedMemory {
 public:
  static constexpr std::size_t most_bytes = 227 * 1024;

  SharedMemory();
  /// For the blocks of a launch.
  void set_size(std::size_t bytes) { size_ = bytes; }
  /// Every byte is 0xFF, which is NaN in all formats, and nobody has touched it.
  void start_block();
  /// All threads of the block have met.
  void order_all() { ++phase_; }

  unsigned char* start() const { return bytes_; }
  /// End the launch where the access is not allowed.
  void check_load(Agent agent, const void* at, int bytes, Site site);
  void check_store(Agent agent, const void* at, int bytes, Site site);
  /// From now until arrive() the bytes are a copy's that this thread has issued.
  void depart(Agent agent, const void* at, int bytes, Site site);
  void arrive(Agent agent, const void* at, int bytes);

 private:
  struct Access {
    Agent agent = Agent::nobody();
    /// Barriers of the block, and of the agent's warp, before it.
    std::uint32_t phase = 0, warp_phase = 0;
  };
  struct Cell {
    Access write, read;
    bool in_flight = false;
  };
  static constexpr int cell_bytes = 2;

  std::size_t range(const void* at, int bytes, const char* what, Site site) const;
  Access now(Agent agent) const;
  static bool ordered(const Access& before, const Access& after);
  [[noreturn]] void fail_race(const char* what, const char* before, const Access& other, std::size_t cell,
                              Site site) const;
  void check_write(Access access, std::size_t cell, const char* what, Site site) const;

  std::unique_ptr<unsigned char[]> memory_;
  unsigned char* bytes_;
  std::unique_ptr<Cell[]> cells_;
  std::size_t size_ = 0;
  std::uint32_t phase_ = 0;
};

}  // namespace SoftwareGPU
