// cp.async.bulk.tensor (PTX ISA, "Tensors", "Swizzling modes", "Out of bound access").
#include <cstring>
#include <vector>

#include "support.hpp"

namespace {

using namespace test;

constexpr Arrival arrivals[] = {Arrival::early, Arrival::late, Arrival::random};
constexpr int rows = 24, tile_bytes = rows * 128;

/// [tokens, heads, dimension] of numbers that tell where they are.
struct Tensor {
  static constexpr int tokens = 30, heads = 3, dimension = 132, token_stride = 3 * 144, head_stride = 144;
  std::vector<u16> numbers;
  TensorMap map;

  static u16 at(int token, int head, int x) { return static_cast<u16>(1 + (token * heads + head) * dimension + x); }
  Tensor() : numbers(tokens * token_stride + 8, 0xDEAD), map{} {
    u16* first = aligned();
    for (int t = 0; t < tokens; ++t)
      for (int h = 0; h < heads; ++h)
        for (int x = 0; x < dimension; ++x) first[t * token_stride + h * head_stride + x] = at(t, h, x);
    EXPECT(encode_tensor_map(map, description()), "a map");
  }
  u16* aligned() { return numbers.data() + (16 - reinterpret_cast<std::uintptr_t>(numbers.data()) % 16) % 16 / 2; }
  TiledTensor description() {
    return {aligned(), 3, {dimension, heads, tokens}, {2 * head_stride, 2 * token_stride}, {64, 1, rows}};
  }
};

struct Copy {
  TensorMap map;
  int x, y, z;
  bool waits = true, makes_mbarrier_known = true;
  int to = 1024, expected = tile_bytes;
  mutable u16 tile[rows][64] = {};
};

void copy_kernel(const Copy& copy) {
  SHARED_MEMORY(shared);
  u64* full = reinterpret_cast<u64*>(shared);
  if (thread_id() == 0) {
    mbarrier_init(full, 1);
    if (copy.makes_mbarrier_known) mbarrier_init_fence();
  }
  block_barrier();
  if (thread_id() == 0) {
    mbarrier_arrive_expect(full, copy.expected);
    copy_tile(shared + copy.to, &copy.map, full, copy.x, copy.y, copy.z);
  }
  block_barrier();
  if (copy.waits) mbarrier_wait(full, 0);
  for (int i = thread_id(); i < rows * 64; i += 64) {
    const int row = i / 64, column = i % 64;
    copy.tile[row][column] =
        load_shared<u16>(shared + copy.to + row * 128 + ((column / 8) ^ (row % 8)) * 16 + column % 8 * 2);
  }
}

void tiles() {
  Tensor tensor;
  for (const Arrival arrival : arrivals) {
    for (const int x : {0, 64, 128, -8, 200}) {
      for (const int z : {0, 10, 29, -5, 40}) {
        for (const int y : {0, 2, 3}) {
          const Copy copy{tensor.map, x, y, z};
          EXPECT_RUNS(run(copy, {with(1, arrival), 64, {}, 1024 + tile_bytes}, copy_kernel));
          int wrong = 0;
          for (int r = 0; r < rows; ++r) {
            for (int c = 0; c < 64; ++c) {
              const bool is_in =
                  x + c >= 0 && x + c < Tensor::dimension && y < Tensor::heads && z + r >= 0 && z + r < Tensor::tokens;
              wrong += copy.tile[r][c] != (is_in ? Tensor::at(z + r, y, x + c) : 0);
            }
          }
          EXPECT(wrong == 0, "%d numbers of the tile at %d, %d, %d", wrong, x, y, z);
        }
      }
    }
  }
}

Copy copy_of(Tensor& tensor) { return {tensor.map, 0, 0, 0}; }

void rules_of_copies() {
  Tensor tensor;
  for (const Arrival arrival : arrivals) {
    const Launch how{with(1, arrival), 64, {}, 1024 + tile_bytes};
    Copy copy = copy_of(tensor);
    copy.waits = false;
    EXPECT_FAULT(run(copy, how, copy_kernel), illegal_instruction, "whose copy was not waited for");
    copy = copy_of(tensor);
    copy.makes_mbarrier_known = false;
    EXPECT_FAULT(run(copy, how, copy_kernel), illegal_instruction, "fence.mbarrier_init");
    copy = copy_of(tensor);
    copy.to = 1024 + 128;
    EXPECT_FAULT(run(copy, {with(1, arrival), 64, {}, 8192}, copy_kernel), misaligned_address, "a tensor copy");
    copy = copy_of(tensor);
    copy.to = 2048;
    EXPECT_FAULT(run(copy, how, copy_kernel), illegal_address, "a tensor copy");
    copy = copy_of(tensor);
    copy.expected = tile_bytes + 16;
    EXPECT_FAULT(run(copy, how, copy_kernel), illegal_instruction, "deadlock");
    copy = copy_of(tensor);
    memory.allow(tensor.aligned(), 2 * Tensor::token_stride * (Tensor::tokens - 1));
    EXPECT_RUNS(run(copy, how, copy_kernel));
    copy.z = Tensor::tokens - 1;
    EXPECT_FAULT(run(copy, how, copy_kernel), illegal_address, "nobody's");
    memory.stop_checking();
  }
}

/// What a thread has written by itself is another proxy's. `fences` of two stores.
template <int fences, bool is_ordered>
void overwrite(const Copy& copy) {
  SHARED_MEMORY(shared);
  u64* full = reinterpret_cast<u64*>(shared);
  if (thread_id() == 0) mbarrier_init(full, 1), mbarrier_init_fence();
  if (thread_id() == 40) {
    store_shared<u32>(shared + 2048, 1);
    if (fences > 0) fence_async();
    store_shared<u32>(shared + 2048, 2);
    if (fences > 1) fence_async();
  }
  block_barrier();
  if (!is_ordered && thread_id() == 40) load_shared<u32>(shared + 2048);
  if (thread_id() == 0) {
    mbarrier_arrive_expect(full, copy.expected);
    copy_tile(shared + 1024, &copy.map, full, 0, 0, 0);
  }
  mbarrier_wait(full, 0);
}

void proxies() {
  Tensor tensor;
  const Copy copy = copy_of(tensor);
  for (unsigned seed = 0; seed < 6; ++seed) {
    const Launch how{with(seed), 64, {}, 1024 + tile_bytes};
    EXPECT_RUNS(run(copy, how, overwrite<2, true>));
    EXPECT_FAULT(run(copy, how, overwrite<0, true>), illegal_instruction, "without fence.proxy.async");
    EXPECT_FAULT(run(copy, how, overwrite<1, true>), illegal_instruction, "without fence.proxy.async");
    EXPECT_FAULT(run(copy, how, overwrite<2, false>), illegal_instruction, "");
  }
}

/// Several tiles arrive in any order: those of the other mbarrier need not have come.
void any_order() {
  Tensor tensor;
  int firsts = 0;
  for (unsigned seed = 0; seed < 40; ++seed) {
    const Copy copy = copy_of(tensor);
    EXPECT_RUNS(run(copy, {with(seed), 32, {}, 1024 + 2 * tile_bytes}, [](const Copy& c) {
      SHARED_MEMORY(shared);
      u64* full = reinterpret_cast<u64*>(shared);
      if (lane_id() == 0) {
        mbarrier_init(full, 1), mbarrier_init(full + 1, 1), mbarrier_init_fence();
        for (int i = 0; i < 2; ++i) {
          mbarrier_arrive_expect(full + i, tile_bytes);
          copy_tile(shared + 1024 + i * tile_bytes, &c.map, full + i, 0, 0, 0);
        }
        mbarrier_wait(full + 1, 0);
        // Without leave, to see.
        c.tile[0][0] = *reinterpret_cast<u16*>(shared + 1024);
        mbarrier_wait(full, 0);
      }
    }));
    firsts += copy.tile[0][0] == 0xFFFF;
  }
  EXPECT(firsts > 5 && firsts < 35, "%d of 40 times the second came first", firsts);
}

void maps() {
  Tensor tensor;
  TensorMap map;
  const auto refused = [&](auto change) {
    TiledTensor description = tensor.description();
    change(description);
    return !encode_tensor_map(map, description);
  };
  EXPECT(!refused([](TiledTensor&) {}), "as it is");
  EXPECT(refused([](TiledTensor& t) { t.start = static_cast<const char*>(t.start) + 2; }), "start");
  EXPECT(refused([](TiledTensor& t) { t.strides[0] += 2; }), "stride");
  EXPECT(refused([](TiledTensor& t) { t.strides[1] = 1ll << 40; }), "stride");
  EXPECT(refused([](TiledTensor& t) { t.strides[1] = -16; }), "stride");
  EXPECT(refused([](TiledTensor& t) { t.box[2] = 257; }), "box");
  EXPECT(refused([](TiledTensor& t) { t.box[2] = 0; }), "box");
  EXPECT(refused([](TiledTensor& t) { t.box[0] = 72; }), "box");
  EXPECT(refused([](TiledTensor& t) { t.sizes[2] = 0; }), "size");
  EXPECT(refused([](TiledTensor& t) { t.dimensions = 6; }), "dimensions");
}

}  // namespace

void test::tensor_copies() {
  step("tensor copies: swizzled tiles, zero out of bounds", tiles);
  step("tensor copies: misuse is a fault", rules_of_copies);
  step("tensor copies: what threads have written is fenced", proxies);
  step("tensor copies: arrive in any order", any_order);
  step("tensor maps that the driver would refuse", maps);
}
