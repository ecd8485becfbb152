// A block's shared memory, and who may touch which of its bytes.
//
// Two accesses to a cell of two bytes, one of them a write, are a race unless they are of
// one thread or something orders them: a barrier, or a copy or product that was waited for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "../include/SoftwareGPU/site.hpp"
#include "clocks.hpp"

namespace SoftwareGPU {

class SharedMemory {
 public:
  static constexpr std::size_t most_bytes = 227 * 1024;

  SharedMemory();
  /// For the blocks of a launch.
  void set_size(std::size_t bytes) { size_ = bytes; }
  /// Every byte is 0xFF, which is NaN in all formats, and nobody has touched it.
  void start_block();

  unsigned char* start() const { return bytes_; }
  /// Ends the launch unless they are there, at a multiple of `alignment`.
  std::size_t offset_of(const void* at, int bytes, int alignment, const char* what, Site site) const;

  /// End the launch where the access is not allowed.
  void check_load(Agent agent, const void* at, int bytes, Site site);
  void check_store(Agent agent, const void* at, int bytes, Site site);
  /// Whether what has written there is known to the agent.
  void check_is_written(Agent agent, const void* at, int bytes, Site site);
  /// From now until arrive() the bytes are a copy's that this thread has issued.
  void depart(Agent agent, const void* at, int bytes, Site site);
  void arrive(Agent agent, const void* at, int bytes);

  /// fence.proxy.async: what this thread has written, asynchronous instructions may touch.
  void fence(int thread) { ++fences_[thread]; }
  /// A tensor copy that this thread has issued: written by `access`.
  void depart_with(Access access, Agent issuer, const void* at, int bytes, Site site);
  /// Products of this warp read from now until finish_products().
  void check_product(int warp, const void* at, int bytes, Site site);
  void finish_product(int warp, const void* at, int bytes);

 private:
  static constexpr int cell_bytes = 2, product_cell_bytes = 16;

  struct Cell {
    Access write, read;
    /// Who reads, if they are several: warps.
    std::uint32_t readers = 0;
    /// How many fences the thread that has written had executed.
    std::uint32_t fences = 0;
    bool in_flight = false;
  };
  /// What products have read.
  struct ProductCell {
    /// Of products that are under way.
    std::uint16_t pending[most_warps] = {};
    std::uint32_t time[most_warps] = {};
  };

  std::size_t first_cell(const void* at) const {
    return static_cast<std::size_t>(static_cast<const unsigned char*>(at) - bytes_) / cell_bytes;
  }
  static void note_read(Cell& cell, const View& view, const Access& access);
  void check_written(const Cell& cell, const View& view, std::size_t index, Site site) const;
  void check_write(const Cell& cell, const View& view, std::size_t index, const char* what, Site site) const;
  void check_products(const View& view, std::size_t cell, const char* what, Site site) const;
  void check_fenced(const Cell& cell, std::size_t index, Site site) const;
  [[noreturn]] void fail_race(const char* what, const char* before, Agent other, std::size_t cell, Site site) const;

  std::unique_ptr<unsigned char[]> memory_;
  unsigned char* bytes_;
  std::unique_ptr<Cell[]> cells_;
  /// Made when a kernel first has products.
  std::unique_ptr<ProductCell[]> product_cells_;
  bool has_products_ = false;
  std::uint32_t fences_[most_threads] = {};
  std::size_t size_ = 0;
};

}  // namespace SoftwareGPU
