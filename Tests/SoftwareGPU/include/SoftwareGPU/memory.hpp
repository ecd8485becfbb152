// Loads and stores, each checked: that it is aligned to its size, within memory that is
// there, and, of shared memory, ordered with those of other threads.
#pragma once

#include <cstddef>
#include <cstring>
#include <type_traits>

#include "site.hpp"

namespace SoftwareGPU {

/// The global memory that kernels may touch; nothing but alignment is checked until a first
/// range is allowed. Not while a launch runs.
struct Memory {
  void allow(const void* start, std::size_t bytes);
  /// Takes back what allow() was given with this start.
  void forbid(const void* start);
  /// As if none had ever been allowed.
  void stop_checking();
};
extern Memory memory;

unsigned char* shared_memory();

void check_shared_load(const void* at, int bytes, Site site);
void check_shared_store(const void* at, int bytes, Site site);
void check_global(const void* at, int bytes, int alignment, Site site);

template <class T>
constexpr bool is_accessible = std::is_trivially_copyable_v<T> && (sizeof(T) == 1 || sizeof(T) == 2 || sizeof(T) == 4 ||
                                                                   sizeof(T) == 8 || sizeof(T) == 16);

}  // namespace SoftwareGPU

/// The block's dynamic shared memory, aligned to 1024 bytes.
#define SHARED_MEMORY(name) unsigned char* const name = SoftwareGPU::shared_memory()

template <class T>
T load_shared(const void* at, SoftwareGPU::Site site = SoftwareGPU::Site::here()) {
  static_assert(SoftwareGPU::is_accessible<T> && sizeof(T) >= 2, "one access of 2 to 16 bytes");
  SoftwareGPU::check_shared_load(at, sizeof(T), site);
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

template <class T>
void store_shared(void* at, T value, SoftwareGPU::Site site = SoftwareGPU::Site::here()) {
  static_assert(SoftwareGPU::is_accessible<T> && sizeof(T) >= 2, "one access of 2 to 16 bytes");
  SoftwareGPU::check_shared_store(at, sizeof(T), site);
  std::memcpy(at, &value, sizeof(T));
}

template <class T>
T load_global(const void* at, SoftwareGPU::Site site = SoftwareGPU::Site::here()) {
  static_assert(SoftwareGPU::is_accessible<T>, "one access of 1 to 16 bytes");
  SoftwareGPU::check_global(at, sizeof(T), sizeof(T), site);
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

template <class T>
void store_global(void* at, T value, SoftwareGPU::Site site = SoftwareGPU::Site::here()) {
  static_assert(SoftwareGPU::is_accessible<T>, "one access of 1 to 16 bytes");
  SoftwareGPU::check_global(at, sizeof(T), sizeof(T), site);
  std::memcpy(at, &value, sizeof(T));
}
