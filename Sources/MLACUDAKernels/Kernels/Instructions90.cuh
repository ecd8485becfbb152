/*
 * What compute capability 9.0 has besides (sm_90a): barriers in shared memory that count
 * bytes, copies of tensors' tiles, products of warpgroups, each by itself while threads do
 * other things. On the host SoftwareGPU.hpp has the same names. Sections are of the PTX ISA.
 */
#pragma once
#include "Instructions.cuh"

typedef unsigned long long u64;

#ifdef __CUDACC__

/** Where tiles that are swizzled by 128 bytes can lie: the pattern repeats after 1024. */
#define SHARED_MEMORY_OF_TILES(name) extern __shared__ __align__(1024) unsigned char name[]

/* ---- barriers ------------------------------------------------------------ */

/** mbarrier.init (9.7.13.15): one that `arrivals` complete. */
DEVICE void mbarrier_init(u64 *mbarrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(mbarrier)), "r"(arrivals) : "memory");
}
/** Makes those that this thread has made known to asynchronous copies. */
DEVICE void mbarrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
DEVICE void mbarrier_arrive(u64 *mbarrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(mbarrier)) : "memory");
}
/** Arrives; `bytes` more must be copied. */
DEVICE void mbarrier_arrive_expect(u64 *mbarrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(mbarrier)), "r"(bytes)
               : "memory");
}
/** Until the phase of this parity is complete. */
DEVICE void mbarrier_wait(u64 *mbarrier, int parity) {
  u32 is_complete;
  do {
    asm volatile("{\n.reg .pred done;\nmbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\n"
                 "selp.u32 %0, 1, 0, done;\n}"
                 : "=r"(is_complete)
                 : "r"(shared_address(mbarrier)), "r"(parity)
                 : "memory");
  } while (!is_complete);
}

/** barrier.sync and barrier.red.or (9.7.13.1) of some of a block's warps. */
DEVICE void named_barrier(int id, int threads) {
  asm volatile("barrier.sync.aligned %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
DEVICE bool named_barrier_or(int id, int threads, bool yes) {
  u32 one_said_yes;
  asm volatile("{\n.reg .pred mine, all;\nsetp.ne.u32 mine, %3, 0;\nbarrier.red.or.pred.aligned all, %1, %2, mine;\n"
               "selp.u32 %0, 1, 0, all;\n}"
               : "=r"(one_said_yes)
               : "r"(id), "r"(threads), "r"(static_cast<u32>(yes))
               : "memory");
  return one_said_yes;
}

/* ---- tiles of tensors ---------------------------------------------------- */

/** cp.async.bulk.tensor (9.7.9.27): the box at x, y, z of a tensor of three dimensions. */
template <class TensorMap>
DEVICE void copy_tile(void *shared, const TensorMap *map, u64 *mbarrier, int x, int y, int z) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
               "[%0], [%1, {%3, %4, %5}], [%2];" ::"r"(shared_address(shared)),
               "l"(map), "r"(shared_address(mbarrier)), "r"(x), "r"(y), "r"(z)
               : "memory");
}

/** fence.proxy.async (9.7.13.4): what this thread has written, copies and products may touch. */
DEVICE void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/** setmaxnreg (9.7.19.5), of whole warpgroups. */
template <int COUNT> DEVICE void registers_increase() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}
template <int COUNT> DEVICE void registers_decrease() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}

/* ---- products (9.7.15) --------------------------------------------------- */

/** Before products, where their registers have been touched. */
DEVICE void products_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/** Until at most the latest N groups are under way. */
template <int N> DEVICE void products_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }

#define D4(i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define D16(i) D4(i), D4(i + 1), D4(i + 2), D4(i + 3)
#define D64 D16(0), D16(4), D16(8), D16(12)
#define D64_NAMES                                                                             \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "    \
  "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, "     \
  "%36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, "     \
  "%53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}"
#define PRODUCT(type)                                                                         \
  asm volatile("{\n.reg .pred adds;\nsetp.ne.u32 adds, %66, 0;\n"                             \
               "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " " D64_NAMES     \
               ", %64, %65, adds, 1, 1, 0, 0;\n}"                                             \
               : D64                                                                          \
               : "l"(a_tile), "l"(b_tile), "r"(static_cast<u32>(adds)))
#define PRODUCT_OF_REGISTERS(type)                                                            \
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " " D64_NAMES     \
               ", {%64, %65, %66, %67}, %68, 1, 1, 1, 1;"                                     \
               : D64                                                                          \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b_tile))

/** d = a b, or d += a b: of 64 rows and 128 columns, 16 deep; d as that of mma, by 8 columns.
    Both in shared memory, 16 contiguous. */
template <bool IS_FP16> DEVICE void product(float (&d)[16][4], u64 a_tile, u64 b_tile, bool adds) {
  if constexpr (IS_FP16)
    PRODUCT("f16");
  else
    PRODUCT("bf16");
}
/** d += a b, a in registers as that of mma, b with columns contiguous. */
template <bool IS_FP16> DEVICE void product_of_registers(float (&d)[16][4], const u32 (&a)[4], u64 b_tile) {
  if constexpr (IS_FP16)
    PRODUCT_OF_REGISTERS("f16");
  else
    PRODUCT_OF_REGISTERS("bf16");
}

#undef PRODUCT
#undef PRODUCT_OF_REGISTERS
#undef D64_NAMES
#undef D64
#undef D16
#undef D4

#else
#define SHARED_MEMORY_OF_TILES(name) SHARED_MEMORY(name)
#endif

/** Of a matrix in shared memory, in rows of 128 swizzled bytes, eight of which are 1024. */
DEVICE u64 matrix_descriptor(u32 address, u32 leading_bytes, u32 stride_bytes) {
  constexpr u64 swizzled_by_128 = u64{1} << 62;
  return u64{address >> 4} | u64{leading_bytes >> 4} << 16 | u64{stride_bytes >> 4} << 32 | swizzled_by_128;
}
