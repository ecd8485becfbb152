// A GPU as CUDA kernels see it, executed on the host: what Kernels/Instructions.cuh and
// Instructions90.cuh are where the compiler is no CUDA compiler, and how a test launches what
// it has compiled.
//
// Each instruction keeps the rules that the PTX ISA manual (8.8) has for it and refuses
// what the manual leaves undefined: a launch that breaks a rule ends with a text that
// says where. What the manual leaves open (the order of warps, when a copy or a product is
// carried out, the order in which products are summed, the last bits of an approximation)
// comes from a seed.
//
// What it cannot show: how fast anything is, how registers are used; what goes around the
// functions here, such as a pointer into shared memory that a kernel reads by itself; races
// in global memory. A lane that arrives at an mbarrier vouches for what its warp has done up
// to the warp's last barrier, and where several warps have read a cell, an mbarrier orders
// them only as far as the latest of them.
#pragma once

#include "SoftwareGPU/copies.hpp"
#include "SoftwareGPU/formats.hpp"
#include "SoftwareGPU/hopper.hpp"
#include "SoftwareGPU/launch.hpp"
#include "SoftwareGPU/memory.hpp"
#include "SoftwareGPU/threads.hpp"
#include "SoftwareGPU/warp.hpp"

#define DEVICE inline
