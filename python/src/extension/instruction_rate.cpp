// How fast the instruction is that a kernel consists of: what its speed is measured against.
#include "arguments.h"
#include "bindings.h"

#ifdef __x86_64__
extern "C" {
#include <bench_instructions.h>
}
#endif

namespace mla_python {

namespace {

struct Instruction {
  const char *name;
  int probe;
};

std::int32_t isa_of(const mla_cpu_info &info, std::int32_t dtype) {
  switch (dtype) {
    case MLA_DTYPE_BFLOAT16: return info.bf16_isa;
    case MLA_DTYPE_FLOAT16: return info.fp16_isa;
    case MLA_DTYPE_FLOAT32: return info.fp32_isa;
    default:
      raise(PyExc_ValueError,
            "dtype = " + std::to_string(dtype) + ": must be of bfloat16, float16 or float32");
  }
}

/// No probe on other architectures.
Instruction instruction_of(std::int32_t isa) {
#ifdef __x86_64__
  switch (isa) {
    case MLA_ISA_AMX: return {"tdpbf16ps", BENCH_PROBE_AMX_BF16};
    case MLA_ISA_AVX512_BF16: return {"vdpbf16ps", BENCH_PROBE_AVX512_BF16};
    case MLA_ISA_AVX512: return {"vfmadd 512", BENCH_PROBE_AVX512_FMA};
    case MLA_ISA_AVX2: return {"vfmadd 256", BENCH_PROBE_AVX2_FMA};
    case MLA_ISA_PORTABLE: return {"mulps+addps", BENCH_PROBE_SSE_MUL_ADD};
    default: break;
  }
#endif
  (void)isa;
  return {"", 0};
}

double measured(Instruction instruction, double seconds) {
#ifdef __x86_64__
  const WithoutGil without_gil;
  return bench_probe(instruction.probe, BENCH_CLOCK_WALL, seconds);
#else
  (void)instruction, (void)seconds;
  return 0;
#endif
}

/// (name, FLOP/s of this thread) of the instruction that the kernel of a dtype consists of.
nb::tuple instruction_rate(nb::handle dtype, nb::handle seconds) {
  const std::int32_t code = int32_argument(dtype, "dtype");
  const double duration = float_argument(seconds, "seconds");
  // Nothing ends it before.
  if (!(duration >= 0 && duration <= 1)) raise(PyExc_ValueError, "seconds: must be 0 to 1");
  mla_cpu_info info = MLA_CPU_INFO_INIT;
  call_library([&] { return mla_get_cpu_info(&info); });
  const Instruction instruction = instruction_of(isa_of(info, code));
  return nb::make_tuple(instruction.name, measured(instruction, duration));
}

}  // namespace

void bind_instruction_rate(nb::module_ &module) {
  define(module, "instruction_rate", &instruction_rate);
}

}  // namespace mla_python
