// What the 32 lanes of a warp do together. All of them must be at the same instruction.
#pragma once

#include "formats.hpp"
#include "site.hpp"

/// ldmatrix.sync.aligned.m8n8.x4.shared.b16: four matrices of 8 rows of 16 bytes. Lane
/// 8 m + r has the address of row r of matrix m.
void load_matrix(u32 (&matrices)[4], const void* row, SoftwareGPU::Site site = SoftwareGPU::Site::here());

/// ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16.
void load_matrix_transposed(u32 (&matrices)[4], const void* row, SoftwareGPU::Site site = SoftwareGPU::Site::here());

/// mma.sync.aligned.m16n8k16.row.col.f32.{bf16.bf16,f16.f16}.f32, in place: d += a b.
void multiply_add_bf16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1,
                       SoftwareGPU::Site site = SoftwareGPU::Site::here());
void multiply_add_fp16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1,
                       SoftwareGPU::Site site = SoftwareGPU::Site::here());

/// shfl.sync.bfly of all lanes: what lane `lane ^ mask` has in `value`.
float shuffle_xor(float value, int mask, SoftwareGPU::Site site = SoftwareGPU::Site::here());
