#include "../include/SoftwareGPU/launch.hpp"

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <numeric>
#include <vector>

#include "block.hpp"

namespace SoftwareGPU {

namespace {

constexpr std::size_t most_parameter_bytes = 4096;

std::map<std::string, Kernel>& kernels() {
  static std::map<std::string, Kernel> all;
  return all;
}

std::string refusal(const Kernel& kernel, Grid grid, int threads, std::size_t shared_bytes,
                    std::size_t parameter_bytes) {
  const auto differs = [](const char* field, std::size_t value, const std::string& rule) {
    return std::string(field) + " = " + std::to_string(value) + ": " + rule;
  };
  if (threads != kernel.threads)
    return differs("threads", static_cast<std::size_t>(threads), "declared as " + std::to_string(kernel.threads));
  if (threads < lanes || threads > most_threads || threads % lanes != 0)
    return differs("threads", static_cast<std::size_t>(threads), "must be whole warps, 1024 threads at most");
  if (grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.y > 65535 || grid.z > 65535)
    return differs("grid.x", static_cast<std::size_t>(grid.x), "must be positive, y and z 65535 at most");
  if (shared_bytes > SharedMemory::most_bytes) return differs("shared_bytes", shared_bytes, "must be 232448 at most");
  if (kernel.parameter_bytes > most_parameter_bytes)
    return differs("parameter_bytes", kernel.parameter_bytes, "must be 4096 at most");
  if (parameter_bytes != kernel.parameter_bytes)
    return differs("parameter_bytes", parameter_bytes, "the kernel has " + std::to_string(kernel.parameter_bytes));
  return "";
}

}  // namespace

Kernel& registered(const char* name) {
  Kernel& kernel = kernels()[name];
  kernel.name = name;
  return kernel;
}

const Kernel* find(const char* name) {
  const auto found = kernels().find(name);
  return found == kernels().end() ? nullptr : &found->second;
}

Result launch(const Kernel& kernel, Grid grid, int threads, std::size_t shared_bytes, const void* parameters,
              std::size_t parameter_bytes, Options options) {
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  const std::string refused = refusal(kernel, grid, threads, shared_bytes, parameter_bytes);
  if (!refused.empty()) return {Fault::refused, kernel.name + ": " + refused};
  // As the launch has them: whoever made it may change his own.
  alignas(128) unsigned char copy[most_parameter_bytes];
  std::memcpy(copy, parameters, parameter_bytes);
  block.options = options;
  block.random = Random(options.seed);
  block.result = Result();
  block.shared.set_size(shared_bytes);
  const std::uint64_t plane = static_cast<std::uint64_t>(grid.x) * static_cast<std::uint64_t>(grid.y);
  const std::uint64_t count = plane * static_cast<std::uint64_t>(grid.z);
  // Each once, in an order that is none of the grid's.
  std::uint64_t step = 1 + block.random.next() % count, index = block.random.next() % count;
  while (std::gcd(step, count) != 1) ++step;
  for (std::uint64_t i = 0; i < count && block.result.ok(); ++i, index = (index + step) % count) {
    const Grid at{static_cast<int>(index % static_cast<std::uint64_t>(grid.x)),
                  static_cast<int>(index % plane / static_cast<std::uint64_t>(grid.x)),
                  static_cast<int>(index / plane)};
    block.run(kernel, copy, at, threads);
  }
  return block.result;
}

}  // namespace SoftwareGPU
