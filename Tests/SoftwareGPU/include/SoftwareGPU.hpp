// A GPU as CUDA kernels see it, executed on the host: what Kernels/Instructions.cuh is
// where the compiler is no CUDA compiler, and how a test launches what it has compiled.
//
// Each instruction keeps the rules that the PTX ISA manual (8.8) has for it and refuses
// what the manual leaves undefined: a launch that breaks a rule ends with a text that
// says where. What the manual leaves open (the order of warps, when a copy arrives, the
// order in which products are summed, the last bits of an approximation) comes from a seed.
//
// What it cannot show: how fast anything is, registers, occupancy.
#pragma once

#include "SoftwareGPU/copies.hpp"
#include "SoftwareGPU/formats.hpp"
#include "SoftwareGPU/hopper.hpp"
#include "SoftwareGPU/launch.hpp"
#include "SoftwareGPU/memory.hpp"
#include "SoftwareGPU/threads.hpp"
#include "SoftwareGPU/warp.hpp"

#define DEVICE inline
