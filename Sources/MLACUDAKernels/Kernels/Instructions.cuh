/*
 * What a kernel may say to the machine, each thing once. On a GPU: one instruction each. On
 * the host, where kernels are tested: SoftwareGPU.hpp, which carries out the same names by
 * the manual (sections named below are of the PTX ISA) and checks who may touch what when.
 */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;

/** What one lane moves at a time. */
struct alignas(16) Bytes16 {
  u32 words[4];
};

struct alignas(8) Bytes8 {
  u32 words[2];
};

#ifndef __CUDACC__
#include <SoftwareGPU.hpp>
#else

#define DEVICE __device__ __forceinline__
/** KERNEL(name, threads of a block, blocks on a multiprocessor)(PARAMETERS(type) name) {...} */
#define KERNEL(name, threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks) name
/** Read where the launch has put them: indexing an array in them makes no copy of it. */
#define PARAMETERS(type) const __grid_constant__ type
#define SHARED_MEMORY(name) extern __shared__ __align__(128) unsigned char name[]

/* ---- who am I ------------------------------------------------------------ */

DEVICE int thread_id() { return threadIdx.x; }
DEVICE int lane_id() { return threadIdx.x & 31; }
DEVICE int block_x() { return blockIdx.x; }
DEVICE int block_y() { return blockIdx.y; }

/* ---- barriers and lanes -------------------------------------------------- */

/** bar.sync (9.7.13): what this block's threads wrote to shared memory before it, all of
    them see after it. */
DEVICE void block_barrier() { __syncthreads(); }

/** barrier.red.or (9.7.13): such a barrier, which tells whether any thread said yes. */
DEVICE bool block_barrier_or(bool yes) { return __syncthreads_or(yes); }

/** bar.warp.sync (9.7.13): the same for the 32 lanes, and for memory of any kind. */
DEVICE void warp_barrier() { __syncwarp(); }

/** shfl.sync.bfly (9.7.9), of all 32 lanes. */
DEVICE float shuffle_xor(float value, int lanes) { return __shfl_xor_sync(0xffffffffu, value, lanes); }

/* ---- memory -------------------------------------------------------------- */

// On the host these four check range and alignment: all that a kernel touches by itself.
template <class T> DEVICE T load_global(const void *address) { return *static_cast<const T *>(address); }
template <class T> DEVICE void store_global(void *address, T value) { *static_cast<T *>(address) = value; }
template <class T> DEVICE T load_shared(const void *address) { return *static_cast<const T *>(address); }
template <class T> DEVICE void store_shared(void *address, T value) { *static_cast<T *>(address) = value; }

/** An address as instructions on shared memory take it. */
DEVICE u32 shared_address(const void *address) { return static_cast<u32>(__cvta_generic_to_shared(address)); }

/** cp.async.cg (9.7.9.25) of 16 bytes, both addresses multiples of 16; of `bytes` = 0 none is
    read and zeros are written. */
DEVICE void copy_async_16(void *shared, const void *global, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes)
               : "memory");
}

/** cp.async.commit_group: the copies since the last one become a group. */
DEVICE void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/** cp.async.wait_group: all groups of this thread but the last N have arrived. */
template <int N> DEVICE void copies_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

/** ldmatrix.x4 (9.7.14): four matrices of 8 rows of 16 bytes, row i of matrix j at the
    address that lane 8 j + i gives. */
DEVICE void load_matrix(u32 (&r)[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

/** The same with .trans: each matrix transposed. */
DEVICE void load_matrix_transposed(u32 (&r)[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

/* ---- arithmetic ---------------------------------------------------------- */

#define MULTIPLY_ADD(type)                                                                       \
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type ".f32 {%0, %1, %2, %3}, "  \
               "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                                   \
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                  \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))

/** mma.m16n8k16 (9.7.14): d += a b, a of 16 x 16, b of 16 x 8, fragments by lane. */
DEVICE void multiply_add_bf16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) { MULTIPLY_ADD("bf16"); }
DEVICE void multiply_add_fp16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) { MULTIPLY_ADD("f16"); }

#undef MULTIPLY_ADD

/** ex2.approx.ftz and lg2.approx.ftz (9.7.3): within 2^-22. */
DEVICE float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
DEVICE float log2_approx(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/** cvt.rn (9.7.9.22): two numbers rounded to nearest even, `low` into the low half. */
DEVICE u32 pack_bf16(float low, float high) {
  u32 pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
DEVICE u32 pack_fp16(float low, float high) {
  u32 pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

/** cvt.f32.f16. */
DEVICE float fp16_value(u16 half) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
  return value;
}

DEVICE u32 bits_of(float x) { return __float_as_uint(x); }
DEVICE float float_of(u32 bits) { return __uint_as_float(bits); }

#endif

/** A bf16 is an fp32's upper half. */
DEVICE float bf16_value(u16 upper) { return float_of(static_cast<u32>(upper) << 16); }
