// Grids, turns, barriers and shuffles (PTX ISA, "barrier", "bar.warp.sync", "shfl.sync").
#include <cmath>
#include <cstring>
#include <set>
#include <thread>
#include <vector>

#include "support.hpp"

namespace {

using namespace test;

struct Count {
  int *times, *sum;
  Grid grid;
};

void every_thread_of_every_block() {
  for (const Grid grid : {Grid{1, 1, 1}, Grid{7, 3, 2}, Grid{1, 5, 1}, Grid{64, 1, 1}}) {
    const int blocks = grid.x * grid.y * grid.z;
    std::vector<int> times(static_cast<std::size_t>(blocks) * 64);
    int sum = 0;
    const Count count{times.data(), &sum, grid};
    EXPECT_RUNS(run(count, {with(5), 64, grid}, [](const Count& c) {
      EXPECT(lane_id() == thread_id() % 32, "lane %d of thread %d", lane_id(), thread_id());
      const int b = (block_z() * c.grid.y + block_y()) * c.grid.x + block_x();
      ++c.times[b * 64 + thread_id()];
    }));
    for (const int t : times) EXPECT(t == 1, "a thread has run %d times", t);
  }
}

struct Order {
  mutable std::vector<int> threads;
};

/// What a seed decides is the same again; another decides otherwise.
void order_is_of_the_seed() {
  std::set<std::vector<int>> orders, first_warps;
  for (unsigned seed = 0; seed < 8; ++seed) {
    std::vector<int> again;
    for (int round = 0; round < 2; ++round) {
      const Order order{};
      EXPECT_RUNS(run(order, {with(seed), 128, {2, 2, 1}}, [](const Order& o) {
        for (int i = 0; i < 3; ++i)
          shuffle_xor(0, 1), o.threads.push_back(thread_id() / 32 + 4 * (block_x() + 2 * block_y()));
      }));
      if (round == 1) EXPECT(order.threads == again, "seed %u runs otherwise a second time", seed);
      again = order.threads;
    }
    orders.insert(again);
    first_warps.insert({again[0]});
  }
  EXPECT(orders.size() == 8, "%zu orders of 8 seeds", orders.size());
  EXPECT(first_warps.size() > 3, "%zu warps come first", first_warps.size());
}

void barriers() {
  struct Sums {
    mutable int before, wrong, none, one;
  };
  for (unsigned seed = 0; seed < 10; ++seed) {
    const Sums sums{};
    EXPECT_RUNS(run(sums, {with(seed), 128}, [](const Sums& s) {
      for (int round = 1; round <= 10; ++round) {
        ++s.before;
        block_barrier();
        s.wrong += s.before != 128 * round;
        block_barrier();
      }
      s.none += block_barrier_or(false);
      s.one += block_barrier_or(thread_id() == 77);
      s.none += block_barrier_or(false);
    }));
    EXPECT(sums.wrong == 0 && sums.before == 1280, "a thread has passed before others came");
    EXPECT(sums.none == 0 && sums.one == 128, "or: %d, %d", sums.none, sums.one);
  }
  // Threads that have exited are not waited for, before they come or after.
  for (unsigned seed = 0; seed < 10; ++seed) {
    const Sums sums{};
    EXPECT_RUNS(run(sums, {with(seed), 128}, [](const Sums& s) {
      if (thread_id() < 32) return;
      block_barrier();
      ++s.one;
    }));
    EXPECT(sums.one == 96, "%d", sums.one);
  }
}

void shuffles() {
  struct Numbers {
    mutable float out[32][32];
  };
  const Numbers numbers{};
  EXPECT_RUNS(run(numbers, {}, [](const Numbers& n) {
    for (int mask = 0; mask < 32; ++mask)
      n.out[mask][lane_id()] = shuffle_xor(static_cast<float>(lane_id()) + 0.5f, mask);
  }));
  for (int mask = 0; mask < 32; ++mask)
    for (int lane = 0; lane < 32; ++lane)
      EXPECT(numbers.out[mask][lane] == static_cast<float>(lane ^ mask) + 0.5f, "mask %d, lane %d", mask, lane);
}

void shared_memory_is_poisoned() {
  struct Wrong {
    mutable int count;
  };
  const Wrong wrong{};
  EXPECT_RUNS(run(wrong, {with(1), 32, {3, 1, 1}, 227 * 1024}, [](const Wrong& w) {
    SHARED_MEMORY(shared);
    w.count += reinterpret_cast<std::uintptr_t>(shared) % 1024 != 0;
    for (int i = lane_id() * 4; i < 227 * 1024; i += 128) {
      w.count += load_shared<u32>(shared + i) != 0xFFFFFFFFu;
      store_shared<u32>(shared + i, 1);
    }
  }));
  EXPECT(wrong.count == 0, "%d", wrong.count);
}

/// Launches from any thread; they wait for one another.
void from_any_thread() {
  struct Sum {
    mutable int before, count;
  };
  Sum sums[4] = {};
  std::vector<std::thread> threads;
  for (Sum& sum : sums) {
    threads.emplace_back([&sum] {
      for (unsigned seed = 0; seed < 20; ++seed) {
        EXPECT_RUNS(run(sum, {with(seed), 64, {4, 1, 1}}, [](const Sum& s) {
          const float all = shuffle_xor(1, 1);
          block_barrier();
          s.count += static_cast<int>(all);
        }));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Sum& sum : sums) EXPECT(sum.count == 20 * 4 * 64, "%d", sum.count);
}

}  // namespace

void test::threads() {
  step("every thread of every block runs once", every_thread_of_every_block);
  step("the order of warps and blocks is the seed's", order_is_of_the_seed);
  step("barrier and barrier.red.or", barriers);
  step("shfl.bfly", shuffles);
  step("shared memory starts as NaN", shared_memory_is_poisoned);
  step("launches come from any thread", from_any_thread);
}
