// Races in shared memory, by kernels that have one and their neighbours that have none.
#include "support.hpp"

namespace {

using namespace test;

struct Nothing {};
constexpr Nothing nothing{};
const Launch one_warp{};
const Launch two_warps{with(3), 64};

void between_warps() {
  for (unsigned seed = 0; seed < 6; ++seed) {
    const Launch how{with(seed), 64};
    EXPECT_FAULT(run(nothing, how,
                     [](const Nothing&) {
                       SHARED_MEMORY(shared);
                       store_shared<u32>(shared + 4 * thread_id(), 1);
                       load_shared<u32>(shared + 4 * (thread_id() ^ 32));
                     }),
                 illegal_instruction, "race");
    EXPECT_RUNS(run(nothing, how, [](const Nothing&) {
      SHARED_MEMORY(shared);
      store_shared<u32>(shared + 4 * thread_id(), 1);
      block_barrier();
      load_shared<u32>(shared + 4 * (thread_id() ^ 32));
      block_barrier();
      store_shared<u32>(shared + 4 * (thread_id() ^ 32), 1);
    }));
    // Whoever comes first: a write over what others read, or read after.
    EXPECT_FAULT(run(nothing, how,
                     [](const Nothing&) {
                       SHARED_MEMORY(shared);
                       if (thread_id() != 40) load_shared<u32>(shared);
                       if (thread_id() == 40) store_shared<u32>(shared, 1);
                     }),
                 illegal_instruction, "race");
    EXPECT_FAULT(run(nothing, how,
                     [](const Nothing&) {
                       SHARED_MEMORY(shared);
                       if (lane_id() == 0) store_shared<u32>(shared, 1);
                     }),
                 illegal_instruction, "written");
  }
}

/// A barrier orders what was before it with what is after it, and no more.
void after_a_barrier() {
  EXPECT_FAULT(run(nothing, two_warps,
                   [](const Nothing&) {
                     SHARED_MEMORY(shared);
                     block_barrier();
                     store_shared<u32>(shared + 4 * thread_id(), 1);
                     load_shared<u32>(shared + 4 * (thread_id() ^ 32));
                   }),
               illegal_instruction, "race");
  EXPECT_RUNS(run(nothing, two_warps, [](const Nothing&) {
    SHARED_MEMORY(shared);
    for (int round = 0; round < 3; ++round) {
      for (int i = 0; i < 4; ++i) store_shared<u32>(shared + 16 * thread_id() + 4 * i, 1);
      block_barrier();
      u32 fragment[4];
      load_matrix(fragment, shared + 16 * (thread_id() ^ 32));
      block_barrier();
    }
  }));
}

void cells_of_two_bytes() {
  EXPECT_RUNS(run(nothing, two_warps, [](const Nothing&) {
    SHARED_MEMORY(shared);
    store_shared<u16>(shared + 2 * thread_id(), 1);
    load_shared<u16>(shared + 2 * thread_id());
  }));
  for (const bool is_odd : {false, true}) {
    EXPECT_FAULT(run(is_odd, two_warps,
                     [](const bool& odd) {
                       SHARED_MEMORY(shared);
                       if (lane_id() == odd) store_shared<u16>(shared + 2 * odd, 1);
                     }),
                 illegal_instruction, "race");
  }
}

void within_a_warp() {
  EXPECT_FAULT(run(nothing, one_warp,
                   [](const Nothing&) {
                     SHARED_MEMORY(shared);
                     store_shared<u32>(shared + 4 * lane_id(), 1);
                     load_shared<u32>(shared + 4 * (lane_id() ^ 1));
                   }),
               illegal_instruction, "race");
  // A shuffle is no barrier.
  EXPECT_FAULT(run(nothing, one_warp,
                   [](const Nothing&) {
                     SHARED_MEMORY(shared);
                     store_shared<u32>(shared + 4 * lane_id(), 1);
                     shuffle_xor(0, 1);
                     load_shared<u32>(shared + 4 * (lane_id() ^ 1));
                   }),
               illegal_instruction, "race");
  EXPECT_RUNS(run(nothing, one_warp, [](const Nothing&) {
    SHARED_MEMORY(shared);
    store_shared<u32>(shared + 4 * lane_id(), 1);
    warp_barrier();
    load_shared<u32>(shared + 4 * (lane_id() ^ 1));
    warp_barrier();
    store_shared<u32>(shared + 4 * lane_id(), 1);
  }));
  // Of one warp it orders no other.
  EXPECT_FAULT(run(nothing, two_warps,
                   [](const Nothing&) {
                     SHARED_MEMORY(shared);
                     store_shared<u32>(shared + 4 * thread_id(), 1);
                     warp_barrier();
                     load_shared<u32>(shared + 4 * (thread_id() ^ 32));
                   }),
               illegal_instruction, "race");
  // ldmatrix reads for all lanes.
  EXPECT_FAULT(run(nothing, one_warp,
                   [](const Nothing&) {
                     SHARED_MEMORY(shared);
                     for (int i = 0; i < 4; ++i) store_shared<u32>(shared + 16 * lane_id() + 4 * i, 1);
                     u32 fragment[4];
                     load_matrix(fragment, shared + 16 * lane_id());
                   }),
               illegal_instruction, "race");
  EXPECT_FAULT(run(nothing, one_warp,
                   [](const Nothing&) {
                     SHARED_MEMORY(shared);
                     u32 fragment[4];
                     load_matrix(fragment, shared + 16 * lane_id());
                     store_shared<u32>(shared + 16 * lane_id(), 1);
                   }),
               illegal_instruction, "has read");
}

void several_readers() {
  // Whoever of them is the last to read, and writes.
  for (unsigned seed = 0; seed < 6; ++seed) {
    EXPECT_FAULT(run(nothing, {with(seed), 64},
                     [](const Nothing&) {
                       SHARED_MEMORY(shared);
                       load_shared<u32>(shared);
                       warp_barrier();
                       if (thread_id() == 0) store_shared<u32>(shared, 1);
                     }),
                 illegal_instruction, "");
    struct Last {
      mutable int lane;
    };
    EXPECT_FAULT(run(Last{}, {with(seed)},
                     [](const Last& last) {
                       SHARED_MEMORY(shared);
                       load_shared<u32>(shared);
                       last.lane = lane_id();
                       shuffle_xor(0, 1);
                       if (lane_id() == last.lane) store_shared<u32>(shared, 1);
                     }),
                 illegal_instruction, "race");
  }
  EXPECT_RUNS(run(nothing, two_warps, [](const Nothing&) {
    SHARED_MEMORY(shared);
    load_shared<u32>(shared);
    block_barrier();
    if (thread_id() == 0) store_shared<u32>(shared, 1);
    block_barrier();
    load_shared<u32>(shared);
  }));
  EXPECT_RUNS(run(nothing, one_warp, [](const Nothing&) {
    SHARED_MEMORY(shared);
    if (lane_id() == 3) load_shared<u32>(shared);
    warp_barrier();
    if (lane_id() == 5) load_shared<u32>(shared), store_shared<u32>(shared, 1);
  }));
}

}  // namespace

void test::races() {
  step("a race between warps is a fault", between_warps);
  step("a barrier orders what is before and after it", after_a_barrier);
  step("neighbours by two bytes are no race", cells_of_two_bytes);
  step("a race within a warp is a fault", within_a_warp);
  step("all readers of a cell count", several_readers);
}
