// Which thread this is, and the barriers that threads meet at.
#pragma once

#include "site.hpp"

int thread_id();
int lane_id();
int block_x();
int block_y();
int block_z();

/// barrier.cta.sync.aligned: all threads of the block that have not exited; orders what they
/// did to memory before it.
void block_barrier(SoftwareGPU::Site site = SoftwareGPU::Site::here());

/// barrier.cta.red.or: such a barrier, which tells whether any thread has said yes.
bool block_barrier_or(bool yes, SoftwareGPU::Site site = SoftwareGPU::Site::here());

/// bar.warp.sync of all lanes; orders what they did to memory before it.
void warp_barrier(SoftwareGPU::Site site = SoftwareGPU::Site::here());
