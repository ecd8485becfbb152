// mbarrier, named barriers, setmaxnreg (PTX ISA, "mbarrier", "barrier", "setmaxnreg").
#include <set>

#include "support.hpp"

namespace {

using namespace test;

struct Nothing {};
constexpr Nothing nothing{};

Launch of(int threads, unsigned seed) { return {with(seed), threads}; }

u64* first_mbarrier() {
  SHARED_MEMORY(shared);
  return reinterpret_cast<u64*>(shared);
}

/// Made by one thread, known to all.
u64* make(int arrivals) {
  if (thread_id() == 0) {
    mbarrier_init(first_mbarrier(), arrivals);
    mbarrier_init_fence();
  }
  block_barrier();
  return first_mbarrier();
}

/// A warp hands numbers to the other, and room for new ones back.
void phases() {
  struct Sum {
    mutable u32 wrong;
  };
  for (unsigned seed = 0; seed < 20; ++seed) {
    const Sum sum{};
    EXPECT_RUNS(run(sum, of(64, seed), [](const Sum& s) {
      SHARED_MEMORY(shared);
      u64 *full = first_mbarrier(), *empty = full + 1;
      if (thread_id() == 0) mbarrier_init(full, 32), mbarrier_init(empty, 32);
      block_barrier();
      u32* number = reinterpret_cast<u32*>(shared + 1024 + 4 * lane_id());
      for (u32 round = 0; round < 6; ++round) {
        const int parity = round & 1;
        if (thread_id() < 32) {
          mbarrier_wait(empty, parity ^ 1);
          store_shared<u32>(number, round);
          mbarrier_arrive(full);
        } else {
          mbarrier_wait(full, parity);
          s.wrong += load_shared<u32>(shared + 1024 + 4 * (lane_id() ^ 5)) != round;
          mbarrier_arrive(empty);
        }
      }
    }));
    EXPECT(sum.wrong == 0, "%u", sum.wrong);
  }
}

void write_wait_read(int waits, bool arrives_alone, bool meets) {
  SHARED_MEMORY(shared);
  u64* full = make(arrives_alone ? 1 : 32);
  if (thread_id() < 32) {
    for (int i = 0; i < 4; ++i) store_shared<u32>(shared + 1024 + 16 * lane_id() + 4 * i, 1);
    // All have written, which is not to say that anybody knows.
    shuffle_xor(0, 1);
    if (meets) warp_barrier();
    if (!arrives_alone || lane_id() == 0) mbarrier_arrive(full);
  } else {
    if (lane_id() < waits) mbarrier_wait(full, 0);
    shuffle_xor(0, 1);
    u32 fragment[4];
    load_matrix(fragment, shared + 1024 + 16 * lane_id());
  }
}

/// What an arrival makes known, and to whom.
void who_knows() {
  for (unsigned seed = 0; seed < 6; ++seed) {
    const Launch how = of(64, seed);
    EXPECT_RUNS(run(nothing, how, [](const Nothing&) { write_wait_read(32, false, false); }));
    EXPECT_RUNS(run(nothing, how, [](const Nothing&) { write_wait_read(32, true, true); }));
    EXPECT_FAULT(run(nothing, how, [](const Nothing&) { write_wait_read(0, false, false); }), illegal_instruction,
                 "race");
    EXPECT_FAULT(run(nothing, how, [](const Nothing&) { write_wait_read(31, false, false); }), illegal_instruction,
                 "race");
    EXPECT_FAULT(run(nothing, how, [](const Nothing&) { write_wait_read(32, true, false); }), illegal_instruction,
                 "race");
  }
}

void misuse() {
  EXPECT_FAULT(run(nothing, of(64, 1), [](const Nothing&) { mbarrier_wait(make(1), 0); }), illegal_instruction,
               "deadlock: waits at mbarrier.try_wait");
  EXPECT_RUNS(run(nothing, of(64, 1), [](const Nothing&) { mbarrier_wait(make(1), 1); }));
  EXPECT_FAULT(run(nothing, of(64, 1), [](const Nothing&) { mbarrier_arrive(make(1) + 1); }), illegal_instruction,
               "no mbarrier");
  EXPECT_FAULT(run(nothing, of(64, 1),
                   [](const Nothing&) {
                     if (thread_id() == 0) mbarrier_init(first_mbarrier(), 0);
                   }),
               illegal_instruction, "of 0 arrivals");
  EXPECT_FAULT(run(nothing, of(64, 1),
                   [](const Nothing&) {
                     if (thread_id() == 0)
                       mbarrier_init(reinterpret_cast<u64*>(reinterpret_cast<u32*>(first_mbarrier()) + 1), 1);
                   }),
               misaligned_address, "8 bytes");
  EXPECT_FAULT(run(nothing, of(64, 1),
                   [](const Nothing&) {
                     if (thread_id() == 0) mbarrier_init(first_mbarrier(), 1);
                     if (thread_id() == 40) mbarrier_arrive(first_mbarrier());
                   }),
               illegal_instruction, "");
  // Bytes that never come.
  EXPECT_FAULT(run(nothing, of(64, 1),
                   [](const Nothing&) {
                     u64* one = make(1);
                     if (thread_id() == 0) mbarrier_arrive_expect(one, 16);
                     mbarrier_wait(one, 0);
                   }),
               illegal_instruction, "deadlock");
  EXPECT_FAULT(run(nothing, of(64, 1),
                   [](const Nothing&) {
                     u64* one = make(1);
                     if (thread_id() == 0) mbarrier_arrive_expect(one, 16), mbarrier_arrive(one);
                   }),
               illegal_instruction, "more arrivals");
  EXPECT_FAULT(run(nothing, of(64, 1),
                   [](const Nothing&) {
                     u64* one = make(1);
                     if (thread_id() == 0) mbarrier_arrive_expect(one, 1 << 20);
                   }),
               illegal_instruction, "expects");
}

void exchange(int id, int threads) {
  SHARED_MEMORY(shared);
  if (thread_id() < 32) return;
  store_shared<u32>(shared + 4 * thread_id(), 1);
  named_barrier(id, threads);
  load_shared<u32>(shared + 4 * (thread_id() ^ 32));
}

void named_barriers() {
  for (unsigned seed = 0; seed < 10; ++seed) {
    EXPECT_RUNS(run(nothing, of(128, seed), [](const Nothing&) {
      SHARED_MEMORY(shared);
      const int pair = thread_id() / 64;
      for (int round = 0; round < 3; ++round) {
        store_shared<u32>(shared + 4 * thread_id(), 1);
        named_barrier(1 + pair, 64);
        load_shared<u32>(shared + 4 * (thread_id() ^ 32));
        named_barrier(1 + pair, 64);
      }
    }));
    // Of some warps it orders no others.
    EXPECT_FAULT(run(nothing, of(128, seed),
                     [](const Nothing&) {
                       SHARED_MEMORY(shared);
                       store_shared<u32>(shared + 4 * thread_id(), 1);
                       named_barrier(1 + thread_id() / 64, 64);
                       load_shared<u32>(shared + 4 * (thread_id() ^ 64));
                     }),
                 illegal_instruction, "race");
  }
  struct Said {
    mutable int by_one, by_none;
  };
  const Said said{};
  EXPECT_RUNS(run(said, of(128, 1), [](const Said& s) {
    if (thread_id() < 32) return;
    s.by_one += named_barrier_or(2, 96, thread_id() == 77);
    s.by_none += named_barrier_or(2, 96, false);
  }));
  EXPECT(said.by_one == 96 && said.by_none == 0, "or: %d, %d", said.by_one, said.by_none);
  EXPECT_FAULT(run(nothing, of(128, 1),
                   [](const Nothing&) {
                     if (thread_id() < 64)
                       named_barrier(1, 128);
                     else
                       named_barrier_or(1, 128, true);
                   }),
               illegal_instruction, "where other warps are at");
  EXPECT_FAULT(run(nothing, of(128, 1), [](const Nothing&) { exchange(1, 128); }), illegal_instruction, "deadlock");
  EXPECT_FAULT(run(nothing, of(128, 1), [](const Nothing&) { exchange(0, 96); }), illegal_instruction, "barrier 0");
  EXPECT_FAULT(run(nothing, of(128, 1), [](const Nothing&) { exchange(16, 96); }), illegal_instruction, "barrier 16");
  EXPECT_FAULT(run(nothing, of(128, 1), [](const Nothing&) { exchange(1, 80); }), illegal_instruction, "80 threads");
  EXPECT_FAULT(run(nothing, of(128, 1), [](const Nothing&) { named_barrier(1, thread_id() < 64 ? 64 : 96); }),
               illegal_instruction, "barrier 1 of");
}

void registers() {
  // 65536 registers are 168 for each of 384 threads.
  // Whenever turns end: also between asking and waiting.
  for (unsigned seed = 0; seed < 500; ++seed)
    EXPECT_RUNS(run(nothing, of(384, seed), [](const Nothing&) {
      for (int i = 0; i < 8; ++i) shuffle_xor(0, 1);
      if (thread_id() < 128) {
        registers_decrease<24>();
      } else {
        registers_increase<240>();
      }
    }));
  EXPECT_FAULT(run(nothing, of(384, 1),
                   [](const Nothing&) {
                     if (thread_id() < 128) {
                       registers_decrease<32>();
                     } else {
                       registers_increase<240>();
                     }
                   }),
               illegal_instruction, "deadlock: waits at setmaxnreg");
  EXPECT_FAULT(run(nothing, of(384, 1), [](const Nothing&) { registers_decrease<176>(); }), illegal_instruction,
               "setmaxnreg.dec from 168");
  EXPECT_FAULT(run(nothing, of(384, 1), [](const Nothing&) { registers_increase<160>(); }), illegal_instruction,
               "setmaxnreg.inc from 168");
  EXPECT_FAULT(run(nothing, of(384, 1), [](const Nothing&) { registers_decrease<100>(); }), illegal_instruction,
               "100 registers");
}

}  // namespace

void test::mbarriers() {
  step("mbarrier: phases by parity", phases);
  step("mbarrier: who knows of what after it", who_knows);
  step("mbarrier: misuse is a fault", misuse);
  step("barrier.sync of some warps", named_barriers);
  step("setmaxnreg takes what others give", registers);
}
