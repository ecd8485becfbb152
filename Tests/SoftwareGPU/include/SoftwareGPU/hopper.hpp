// What compute capability 9.0 has of its own (sm_90a): barriers in shared memory that count
// bytes, copies of tensors' tiles, asynchronous products of warpgroups.
#pragma once

#include "formats.hpp"
#include "site.hpp"

/// As cuTensorMapEncodeTiled makes it; a kernel's parameter.
struct alignas(64) TensorMap {
  u64 opaque[16];
};

namespace SoftwareGPU {

/// Numbers of two bytes, tiles swizzled by 128 bytes, what is out of bounds is zero.
struct TiledTensor {
  static constexpr int most_dimensions = 5;
  const void* start;
  int dimensions;
  /// In elements, the contiguous dimension first.
  long long sizes[most_dimensions];
  /// In bytes, from the second dimension on.
  long long strides[most_dimensions - 1];
  /// Of a tile.
  int box[most_dimensions];
};

/// False where the driver refuses it (CUDA driver API, cuTensorMapEncodeTiled).
bool encode_tensor_map(TensorMap& map, const TiledTensor& tensor);

void issue_tile(void* shared, const TensorMap& map, u64* mbarrier, int x, int y, int z, Site site);
void issue_product(bool is_fp16, int columns, float* d, const u32* a, u64 a_tile, u64 b_tile, bool adds,
                   SoftwareGPU::Site site);
void wait_for_products(int groups_left, Site site);
void set_registers(int count, bool is_increase, Site site);

}  // namespace SoftwareGPU

/// An address as instructions on shared memory take it.
u32 shared_address(const void* at);

/// mbarrier.init: one that `arrivals` complete. For asynchronous copies it must be fenced.
void mbarrier_init(u64* mbarrier, int arrivals, SoftwareGPU::Site site = SoftwareGPU::Site::here());
/// fence.mbarrier_init.release.cluster, of those that this thread has made.
void mbarrier_init_fence();
/// mbarrier.arrive.
void mbarrier_arrive(u64* mbarrier, SoftwareGPU::Site site = SoftwareGPU::Site::here());
/// mbarrier.arrive.expect_tx: besides, so many bytes must arrive.
void mbarrier_arrive_expect(u64* mbarrier, int bytes, SoftwareGPU::Site site = SoftwareGPU::Site::here());
/// mbarrier.try_wait.parity until it is true: the phase of this parity is complete.
void mbarrier_wait(u64* mbarrier, int parity, SoftwareGPU::Site site = SoftwareGPU::Site::here());

/// cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes: the box at
/// x, y, z of a tensor, x of its contiguous dimension. `Map` is what a kernel calls a TensorMap.
template <class Map>
void copy_tile(void* shared, const Map* map, u64* mbarrier, int x, int y, int z,
               SoftwareGPU::Site site = SoftwareGPU::Site::here()) {
  static_assert(sizeof(Map) == sizeof(TensorMap) && alignof(Map) == alignof(TensorMap), "a tensor map");
  SoftwareGPU::issue_tile(shared, *reinterpret_cast<const TensorMap*>(map), mbarrier, x, y, z, site);
}

/// fence.proxy.async.shared::cta: what this thread has written by itself, asynchronous
/// instructions may touch, once something orders them after it.
void fence_async();

/// barrier.sync id, threads: of whole warps.
void named_barrier(int id, int threads, SoftwareGPU::Site site = SoftwareGPU::Site::here());

/// barrier.red.or id, threads: which tells whether any thread has said yes.
bool named_barrier_or(int id, int threads, bool yes, SoftwareGPU::Site site = SoftwareGPU::Site::here());

/// setmaxnreg, of whole warpgroups.
template <int count>
void registers_increase(SoftwareGPU::Site site = SoftwareGPU::Site::here()) {
  SoftwareGPU::set_registers(count, true, site);
}
template <int count>
void registers_decrease(SoftwareGPU::Site site = SoftwareGPU::Site::here()) {
  SoftwareGPU::set_registers(count, false, site);
}

/// wgmma.fence: before the first product, and where registers have been touched since.
void products_fence(SoftwareGPU::Site site = SoftwareGPU::Site::here());

/// wgmma.mma_async.m64n(8 columns)k16.f32: d = a b, or d += a b; d as that of mma, by 8 columns.
/// Both operands in shared memory, with k contiguous, or a in registers and b with n contiguous;
/// until products_wait() neither may be touched, nor d.
template <bool is_fp16, int columns>
void product(float (&d)[columns][4], u64 a_tile, u64 b_tile, bool adds,
             SoftwareGPU::Site site = SoftwareGPU::Site::here()) {
  SoftwareGPU::issue_product(is_fp16, 8 * columns, d[0], nullptr, a_tile, b_tile, adds, site);
}
template <bool is_fp16, int columns>
void product_of_registers(float (&d)[columns][4], const u32 (&a)[4], u64 b_tile,
                          SoftwareGPU::Site site = SoftwareGPU::Site::here()) {
  SoftwareGPU::issue_product(is_fp16, 8 * columns, d[0], a, 0, b_tile, true, site);
}

/// wgmma.commit_group: the products since the last one are a group.
void products_commit(SoftwareGPU::Site site = SoftwareGPU::Site::here());
/// wgmma.wait_group: until at most N of the latest groups are still under way.
template <int N>
void products_wait(SoftwareGPU::Site site = SoftwareGPU::Site::here()) {
  SoftwareGPU::wait_for_products(N, site);
}
