// Asynchronous copies from global to shared memory, of compute capability 8.0.
#pragma once

#include "site.hpp"

namespace SoftwareGPU {

void wait_for_copies(int groups_left);

}  // namespace SoftwareGPU

/// cp.async.cg.shared.global of 16 bytes, of which `bytes` are read and the rest are zero.
void copy_async_16(void* shared, const void* global, int bytes, SoftwareGPU::Site site = SoftwareGPU::Site::here());

/// cp.async.commit_group: this thread's copies since the last one are a group.
void copies_commit();

/// cp.async.wait_group: until at most N of this thread's latest groups are still under way.
/// Other threads see what has arrived after a barrier.
template <int N>
void copies_wait() {
  static_assert(N >= 0, "a count of groups");
  SoftwareGPU::wait_for_copies(N);
}
