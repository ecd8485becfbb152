// Each rule of the machine but those of races, by a kernel that breaks it.
#include <cstring>

#include "support.hpp"

namespace {

using namespace test;

struct Nothing {};
constexpr Nothing nothing{};
const Launch one_warp{};
const Launch two_warps{with(3), 64};

void shuffle_at_two_places(const Nothing&) {
  if (lane_id() < 7) {
    shuffle_xor(0, 1);
  } else {
    shuffle_xor(0, 1);
  }
}

void divergence() {
  EXPECT_FAULT(run(nothing, one_warp, shuffle_at_two_places), illegal_instruction, "warp has diverged");
  EXPECT_FAULT(run(nothing, one_warp,
                   [](const Nothing&) {
                     if (lane_id() < 7)
                       warp_barrier();
                     else
                       block_barrier();
                   }),
               illegal_instruction, "warp has diverged");
  EXPECT_FAULT(run(nothing, one_warp,
                   [](const Nothing&) {
                     float d[4] = {};
                     const u32 a[4] = {};
                     if (lane_id() < 7)
                       multiply_add_bf16(d, a, 0, 0);
                     else
                       multiply_add_fp16(d, a, 0, 0);
                   }),
               illegal_instruction, "warp has diverged");
  EXPECT_FAULT(run(nothing, one_warp,
                   [](const Nothing&) {
                     if (lane_id() == 9) return;
                     shuffle_xor(0, 1);
                   }),
               illegal_instruction, "");
  EXPECT_FAULT(run(nothing, two_warps,
                   [](const Nothing&) {
                     if (thread_id() < 32)
                       block_barrier();
                     else
                       block_barrier_or(false);
                   }),
               illegal_instruction, "where other warps are at");
  // Warps go their own ways.
  EXPECT_RUNS(run(nothing, two_warps, [](const Nothing&) {
    if (thread_id() < 32) {
      block_barrier();
    } else {
      shuffle_xor(0, 1);
      block_barrier();
    }
  }));
}

/// That a kernel ends, by the order of its threads, in one way or the other.
void expect_either(const Launch& how, void (*kernel)(const Nothing&), const char* one, const char* other) {
  int ones = 0, others = 0;
  for (unsigned seed = 0; seed < 300; ++seed) {
    Launch with_seed = how;
    with_seed.options = with(seed);
    const Result result = run(nothing, with_seed, kernel);
    EXPECT(!result.ok(), "runs with seed %u", seed);
    ones += result.text.find(one) != std::string::npos;
    others += result.text.find(other) != std::string::npos;
  }
  EXPECT(ones > 0 && others > 0 && ones + others == 300, "%d times %s, %d times %s", ones, one, others, other);
}

void deadlock() {
  expect_either(
      one_warp,
      [](const Nothing&) {
        if (lane_id() < 16) shuffle_xor(0, 1);
      },
      "deadlock: waits at shfl.bfly", "shfl.bfly in a warp of which lanes have exited");
  expect_either(
      two_warps,
      [](const Nothing&) {
        block_barrier();
        if (thread_id() < 16) warp_barrier();
      },
      "deadlock: waits at bar.warp.sync", "bar.warp.sync in a warp of which lanes have exited");
}

struct Address {
  unsigned char* memory;
  long offset;
};

void bounds_of_shared_memory() {
  const auto load = [](const Address& a) {
    SHARED_MEMORY(shared);
    if (lane_id() == 0) load_shared<u32>(shared + a.offset);
  };
  const auto store = [](const Address& a) {
    SHARED_MEMORY(shared);
    if (lane_id() == 0) store_shared<u32>(shared + a.offset, 1);
  };
  const auto copy = [](const Address& a) {
    SHARED_MEMORY(shared);
    if (lane_id() == 0) copy_async_16(shared + a.offset, a.memory, 0);
  };
  const auto matrix = [](const Address& a) {
    SHARED_MEMORY(shared);
    u32 fragment[4];
    load_matrix(fragment, shared + (lane_id() == 21 ? a.offset : 0));
  };
  for (const long offset : {-16L, -4L, 4096L, 4098L, 1L << 30}) {
    EXPECT_FAULT(run(Address{nullptr, offset}, one_warp, load), illegal_address, "a load of 4 bytes");
    EXPECT_FAULT(run(Address{nullptr, offset}, one_warp, store), illegal_address, "a store of 4 bytes");
    EXPECT_FAULT(run(Address{nullptr, offset}, one_warp, copy), illegal_address, "a copy of 16 bytes");
    EXPECT_FAULT(run(Address{nullptr, offset}, one_warp, matrix), illegal_address, "a load of 16 bytes");
  }
  for (const long offset : {2L, 1L}) {
    EXPECT_FAULT(run(Address{nullptr, offset}, one_warp, load), misaligned_address, "a load of 4 bytes");
    EXPECT_FAULT(run(Address{nullptr, offset}, one_warp, store), misaligned_address, "a store of 4 bytes");
  }
  for (const long offset : {8L, 4L}) {
    EXPECT_FAULT(run(Address{nullptr, offset}, one_warp, copy), misaligned_address, "a copy of 16 bytes");
    EXPECT_FAULT(run(Address{nullptr, offset}, one_warp, matrix), misaligned_address, "a load of 16 bytes");
  }
  for (const auto kernel : {+load, +store, +copy, +matrix})
    EXPECT_RUNS(run(Address{nullptr, 4096 - 16}, one_warp, kernel));
}

void bounds_of_global_memory() {
  alignas(16) static unsigned char bytes[256] = {};
  const auto load = [](const Address& a) {
    if (lane_id() == 0) load_global<u32>(a.memory + a.offset);
  };
  const auto store = [](const Address& a) {
    if (lane_id() == 0) store_global<u32>(a.memory + a.offset, 1);
  };
  const auto copy = [](const Address& a) {
    SHARED_MEMORY(shared);
    if (lane_id() == 0) copy_async_16(shared, a.memory + a.offset, 16);
  };
  const auto nothing_read = [](const Address& a) {
    SHARED_MEMORY(shared);
    if (lane_id() == 0) copy_async_16(shared, a.memory + a.offset, 0);
  };
  EXPECT_RUNS(run(Address{bytes, 128}, one_warp, load));
  EXPECT_FAULT(run(Address{bytes, 2}, one_warp, load), misaligned_address, "4 bytes of global memory");
  EXPECT_FAULT(run(Address{bytes, 2}, one_warp, store), misaligned_address, "4 bytes of global memory");
  EXPECT_FAULT(run(Address{bytes, 8}, one_warp, copy), misaligned_address, "16 bytes of global memory");
  memory.allow(bytes, 64);
  memory.allow(bytes + 128, 64);
  for (const auto kernel : {+load, +store, +copy}) {
    for (const long offset : {0L, 48L, 128L, 176L}) EXPECT_RUNS(run(Address{bytes, offset}, one_warp, kernel));
    for (const long offset : {-16L, 64L, 112L, 192L})
      EXPECT_FAULT(run(Address{bytes, offset}, one_warp, kernel), illegal_address, "nobody's");
  }
  EXPECT_RUNS(run(Address{bytes, 64}, one_warp, nothing_read));
  memory.forbid(bytes + 128);
  EXPECT_FAULT(run(Address{bytes, 128}, one_warp, load), illegal_address, "nobody's");
  memory.forbid(bytes);
  EXPECT_FAULT(run(Address{bytes, 0}, one_warp, load), illegal_address, "nobody's");
  memory.stop_checking();
  EXPECT_RUNS(run(Address{bytes, 0}, one_warp, load));
}

}  // namespace

struct Large {
  unsigned char bytes[4097];
};
KERNEL(too_large, 32, 1)(PARAMETERS(Large) large) { static_cast<void>(large); }
struct Largest {
  unsigned char bytes[4096];
};
KERNEL(largest, 32, 1)(PARAMETERS(Largest) parameters) { EXPECT(parameters.bytes[4095] == 9, "of a copy"); }

namespace {

void launches() {
  static Largest parameters{};
  parameters.bytes[4095] = 9;
  const Kernel& kernel = *find("largest");
  EXPECT(find("smallest") == nullptr, "no such kernel");
  const auto run_it = [&](Grid grid, int threads, std::size_t shared, std::size_t bytes) {
    return launch(kernel, grid, threads, shared, &parameters, bytes);
  };
  EXPECT_RUNS(run_it({}, 32, 227 * 1024, 4096));
  EXPECT_FAULT(run_it({}, 64, 0, 4096), refused, "threads = 64: declared as 32");
  EXPECT_FAULT(run_it({}, 32, 227 * 1024 + 1, 4096), refused, "shared_bytes = 232449");
  EXPECT_FAULT(run_it({}, 32, 0, 4088), refused, "parameter_bytes = 4088: the kernel has 4096");
  EXPECT_FAULT(run_it({0, 1, 1}, 32, 0, 4096), refused, "grid");
  EXPECT_FAULT(run_it({1, 65536, 1}, 32, 0, 4096), refused, "grid");
  Large large{};
  EXPECT_FAULT(launch(*find("too_large"), {}, 32, 0, &large, sizeof large), refused, "must be 4096 at most");
}

/// The text says where; the launch ends there.
void faults_say_where() {
  struct Blocks {
    mutable int count;
  };
  const Blocks blocks{};
  const int line = __LINE__ + 3;
  const Result result = run(blocks, {with(1), 64, {1000, 1, 1}}, [](const Blocks& b) {
    SHARED_MEMORY(shared);
    if (thread_id() == 37) ++b.count, load_shared<u32>(shared + 2);
  });
  EXPECT(blocks.count == 1, "%d blocks ran into it", blocks.count);
  EXPECT(result.text.find("rules.cpp:" + std::to_string(line) + ": threads_64, block (") != std::string::npos &&
             result.text.find("thread 37: ") != std::string::npos,
         "%s", result.text.c_str());
  EXPECT_RUNS(run(nothing, two_warps, [](const Nothing&) { block_barrier(); }));
}

}  // namespace

void test::rules() {
  step("a warp that diverges is a fault", divergence);
  step("a deadlock is a fault", deadlock);
  step("shared memory has bounds and alignment", bounds_of_shared_memory);
  step("global memory has bounds and alignment", bounds_of_global_memory);
  step("launches that the device would refuse", launches);
  step("a fault says where, and ends the launch", faults_say_where);
}
