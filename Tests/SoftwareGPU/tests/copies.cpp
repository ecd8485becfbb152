// cp.async, its groups (PTX ISA, "cp.async", "cp.async.commit_group", "cp.async.wait_group").
#include <cstring>
#include <numeric>
#include <set>

#include "support.hpp"

namespace {

using namespace test;

constexpr Arrival arrivals[] = {Arrival::early, Arrival::late, Arrival::random};

struct Bytes {
  alignas(16) unsigned char in[64 * 16];
  mutable unsigned char out[64 * 16];
};

Bytes numbered() {
  Bytes bytes{};
  std::iota(std::begin(bytes.in), std::end(bytes.in), static_cast<unsigned char>(1));
  return bytes;
}

struct Sixteen {
  u32 words[4];
};

/// Rows of 16 bytes, of which row i has i % 17 from memory.
void whole_and_partial() {
  for (const Arrival arrival : arrivals) {
    const Bytes bytes = numbered();
    EXPECT_RUNS(run(bytes, {with(1, arrival), 64}, [](const Bytes& b) {
      SHARED_MEMORY(shared);
      const int i = thread_id();
      copy_async_16(shared + 16 * (63 - i), b.in + 16 * i, i % 17);
      copies_commit();
      copies_wait<0>();
      block_barrier();
      const Sixteen got = load_shared<Sixteen>(shared + 16 * i);
      std::memcpy(b.out + 16 * i, &got, 16);
    }));
    for (int i = 0; i < 64; ++i) {
      for (int j = 0; j < 16; ++j) {
        const int from = 63 - i, wanted = j < from % 17 ? bytes.in[16 * from + j] : 0;
        EXPECT(bytes.out[16 * i + j] == wanted, "row %d, byte %d is %d, not %d", i, j, bytes.out[16 * i + j], wanted);
      }
    }
  }
}

/// Copies have arrived, or not, when nobody may look: here the test does, by itself.
struct Peek {
  alignas(16) u32 in[4] = {7, 7, 7, 7};
  /// Of five groups: which had arrived when two were allowed to be under way.
  mutable int arrived[5];
};

void groups_arrive_in_order() {
  std::set<int> seen;
  for (unsigned seed = 0; seed < 60; ++seed) {
    const Arrival arrival = arrivals[seed % 3];
    const Peek peek{};
    EXPECT_RUNS(run(peek, {with(seed, arrival)}, [](const Peek& p) {
      SHARED_MEMORY(shared);
      if (thread_id() == 0) {
        for (int group = 0; group < 5; ++group) {
          copy_async_16(shared + 16 * group, p.in, 16);
          copies_commit();
        }
        copies_wait<2>();
        for (int group = 0; group < 5; ++group) p.arrived[group] = shared[16 * group] == 7;
      }
    }));
    EXPECT(peek.arrived[0] && peek.arrived[1] && peek.arrived[2], "groups that were waited for");
    const int rest = peek.arrived[3] + 2 * peek.arrived[4];
    if (arrival == Arrival::early) EXPECT(rest == 3, "early: %d", rest);
    if (arrival == Arrival::late) EXPECT(rest == 0, "late: %d", rest);
    if (arrival == Arrival::random) seen.insert(rest);
  }
  EXPECT(seen.size() == 4, "%zu of 4 ways at random", seen.size());
}

/// At random a copy may also arrive while its thread does other things.
void arrive_meanwhile() {
  int meanwhile = 0;
  for (unsigned seed = 0; seed < 200; ++seed) {
    const Peek peek{};
    EXPECT_RUNS(run(peek, {with(seed)}, [](const Peek& p) {
      SHARED_MEMORY(shared);
      if (lane_id() == 0) copy_async_16(shared, p.in, 16);
      const int before = shared[0] == 7;
      for (int i = 0; i < 20; ++i) shuffle_xor(0, 1);
      if (lane_id() == 0) p.arrived[0] = before, p.arrived[1] = shared[0] == 7;
    }));
    meanwhile += !peek.arrived[0] && peek.arrived[1];
  }
  EXPECT(meanwhile > 10, "%d of 200", meanwhile);
}

template <int left>
void wait_and_read(const Peek& p) {
  SHARED_MEMORY(shared);
  copy_async_16(shared + 16 * lane_id(), p.in, 16);
  copies_commit();
  copy_async_16(shared + 1024 + 16 * lane_id(), p.in, 16);
  copies_commit();
  copies_wait<left>();
  load_shared<u32>(shared + 1024 + 16 * lane_id());
}

void must_be_waited_for() {
  for (const Arrival arrival : arrivals) {
    const Launch how{with(1, arrival)};
    const Peek peek{};
    EXPECT_RUNS(run(peek, how, wait_and_read<0>));
    EXPECT_FAULT(run(peek, how, wait_and_read<1>), illegal_instruction, "whose copy was not waited for");
    EXPECT_FAULT(run(peek, how,
                     [](const Peek& p) {
                       SHARED_MEMORY(shared);
                       copy_async_16(shared + 16 * lane_id(), p.in, 16);
                       store_shared<u32>(shared + 16 * lane_id(), 1);
                     }),
                 illegal_instruction, "whose copy was not waited for");
    EXPECT_FAULT(run(peek, how,
                     [](const Peek& p) {
                       SHARED_MEMORY(shared);
                       copy_async_16(shared + 16 * lane_id(), p.in, 16);
                       copies_wait<0>();  // of no group
                       load_shared<u32>(shared + 16 * lane_id());
                     }),
                 illegal_instruction, "whose copy was not waited for");
  }
}

void are_seen_by_others_after_a_barrier() {
  for (const Arrival arrival : arrivals) {
    const Launch how{with(1, arrival), 64};
    const Peek peek{};
    EXPECT_FAULT(run(peek, how,
                     [](const Peek& p) {
                       SHARED_MEMORY(shared);
                       copy_async_16(shared + 16 * thread_id(), p.in, 16);
                       copies_commit();
                       copies_wait<0>();
                       shuffle_xor(0, 1);
                       load_shared<u32>(shared + 16 * (thread_id() ^ 1));
                     }),
                 illegal_instruction, "race: touches");
    // Another thread's wait is not one's own.
    EXPECT_FAULT(run(peek, how,
                     [](const Peek& p) {
                       SHARED_MEMORY(shared);
                       if (thread_id() < 32) copy_async_16(shared + 16 * thread_id(), p.in, 16);
                       copies_commit();
                       if (thread_id() >= 32) copies_wait<0>();
                       block_barrier();
                       if (thread_id() >= 32) load_shared<u32>(shared + 16 * (thread_id() - 32));
                     }),
                 illegal_instruction, "whose copy was not waited for");
    // It may arrive as soon as it is issued, where someone still reads.
    for (unsigned seed = 0; seed < 6; ++seed) {
      EXPECT_FAULT(run(peek, {with(seed, arrival), 64},
                       [](const Peek& p) {
                         SHARED_MEMORY(shared);
                         if (thread_id() < 32) load_shared<u32>(shared);
                         if (thread_id() == 32) copy_async_16(shared, p.in, 16);
                       }),
                   illegal_instruction, "shared memory");
    }
  }
}

}  // namespace

void test::copies() {
  step("cp.async copies 16 bytes, fewer and zeros", whole_and_partial);
  step("cp.async: groups arrive in order", groups_arrive_in_order);
  step("cp.async: arrives at any time", arrive_meanwhile);
  step("cp.async must be waited for", must_be_waited_for);
  step("cp.async is seen by other threads after a barrier", are_seen_by_others_after_a_barrier);
}
