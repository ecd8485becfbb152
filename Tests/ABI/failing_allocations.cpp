#include "failing_allocations.hpp"

#include <atomic>
#include <cerrno>

#ifdef FAILING_UNDER_ADDRESS_SANITIZER
// Its allocator is meant to be reached like this by a program that has its own.
#define SYSTEM(name) __interceptor_##name
#define SYSTEM_ALIGNED SYSTEM(memalign)
#else
#define SYSTEM(name) __libc_##name
#define SYSTEM_ALIGNED __libc_memalign
#endif

extern "C" {
void* SYSTEM(malloc)(std::size_t);
void* SYSTEM(calloc)(std::size_t, std::size_t);
void* SYSTEM(realloc)(void*, std::size_t);
void SYSTEM(free)(void*);
void* SYSTEM_ALIGNED(std::size_t, std::size_t);
}

namespace {

std::atomic<bool> counts;
std::atomic<long> seen, first_to_fail, live;
std::atomic<bool> all_after;
std::atomic<std::uint64_t> random_state;
std::atomic<unsigned> one_in;
std::atomic<std::size_t> largest_seen;

/// What the sanitizer takes when a thread starts must not fail; start()'s caller runs already.
thread_local int spared = failing::under_address_sanitizer ? 8 : 0;

/// SplitMix64.
bool fails_at_random() {
  std::uint64_t bits = random_state.fetch_add(0x9E3779B97F4A7C15) + 0x9E3779B97F4A7C15;
  bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9;
  bits = (bits ^ bits >> 27) * 0x94D049BB133111EB;
  return (bits ^ bits >> 31) % one_in == 0;
}

bool fails() {
  if (!counts) return false;
  if (spared > 0) {
    --spared;
    return false;
  }
  const long number = ++seen;
  const long first = first_to_fail;
  const bool is_chosen = one_in > 0 ? fails_at_random()
                                    : first > 0 && (all_after ? number >= first : number == first);
  if (is_chosen) errno = ENOMEM;
  return is_chosen;
}

void look_at(std::size_t bytes) {
  if (!counts) return;
  std::size_t before = largest_seen;
  while (bytes > before && !largest_seen.compare_exchange_weak(before, bytes)) {
  }
}

void* counted(void* memory) {
  if (memory != nullptr) ++live;
  return memory;
}

}  // namespace

namespace failing {

void start(long nth, bool onwards) {
  spared = 0;
  seen = 0;
  largest_seen = 0;
  one_in = 0;
  first_to_fail = nth;
  all_after = onwards;
  counts = true;
}

void start_at_random(std::uint64_t seed, unsigned chance) {
  spared = 0;
  seen = 0;
  random_state = seed;
  one_in = chance;
  counts = true;
}

long stop() {
  counts = false;
  return seen;
}

std::size_t largest() { return largest_seen; }
long live_blocks() { return live; }

}  // namespace failing

extern "C" {

void* malloc(std::size_t bytes) {
  look_at(bytes);
  return fails() ? nullptr : counted(SYSTEM(malloc)(bytes));
}

void* calloc(std::size_t count, std::size_t bytes) {
  look_at(count * bytes);
  return fails() ? nullptr : counted(SYSTEM(calloc)(count, bytes));
}

void* realloc(void* memory, std::size_t bytes) {
  look_at(bytes);
  if (fails()) return nullptr;
  void* moved = SYSTEM(realloc)(memory, bytes);
  if (memory == nullptr) counted(moved);
  return moved;
}

void free(void* memory) {
  if (memory != nullptr) --live;
  SYSTEM(free)(memory);
}

void* memalign(std::size_t alignment, std::size_t bytes) {
  return fails() ? nullptr : counted(SYSTEM_ALIGNED(alignment, bytes));
}

void* aligned_alloc(std::size_t alignment, std::size_t bytes) { return memalign(alignment, bytes); }

int posix_memalign(void** memory, std::size_t alignment, std::size_t bytes) {
  void* made = memalign(alignment, bytes);
  if (made == nullptr) return ENOMEM;
  *memory = made;
  return 0;
}

}  // extern "C"
