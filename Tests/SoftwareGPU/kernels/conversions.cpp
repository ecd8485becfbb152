// Conversions of Elements.cuh that no instruction does, against their definition; what the
// table of kernels says of them.
#include <Attention.cuh>
#include <cmath>
#include <cstring>

#include "report.hpp"
#include "tensor.hpp"

namespace {

/// All bits whose last 14 are of some kind, and what lies around each boundary of two codes.
void fp8() {
  Report report("fp8_e4m3 codes are the nearest, of all fp32 numbers");
  const u32 endings[] = {0, 1, 0x1fff, 0x2000, 0x3fff};
  for (u32 upper = 0; upper < 1u << 18; ++upper)
    for (u32 ending : endings) {
      const float x = float_of(upper << 14 | ending);
      const u32 code = fp8_bits(x);
      report.expect(code == bits_from(Format::fp8, static_cast<double>(x)),
                    std::to_string(x) + " is " + std::to_string(code));
    }
  for (u32 code = 0; code < 0x7e; ++code) {
    const double middle = (value_of(Format::fp8, code) + value_of(Format::fp8, code + 1)) / 2;
    const float at = static_cast<float>(middle);
    for (float x : {std::nextafter(at, 0.0f), at, std::nextafter(at, 1000.0f)})
      for (float sign : {1.0f, -1.0f})
        report.expect(fp8_bits(sign * x) == bits_from(Format::fp8, static_cast<double>(sign * x)),
                      "beside the boundary after code " + std::to_string(code));
  }
}

template <class Element> void finite(Format format) {
  Report report(std::string("is_finite of ") + name_of(format));
  for (u32 bits = 0; bits < 1u << 16; ++bits)
    report.expect(Element::is_finite(bits | 0x7fff0000) == std::isfinite(value_of(format, bits)), std::to_string(bits));
}

template <int QK, int V> void facts(Report& report, const mla_cuda_attention_kernel* all, int count) {
  int found = 0;
  for (int i = 0; i < count; ++i)
    if (all[i].qk_head_dim == QK && all[i].v_head_dim == V) {
      ++found;
      const std::string name = std::string("mla_attend_") + (all[i].dtype == 2 ? "fp16" : "bf16") + "_" +
                               std::to_string(QK) + "_" + std::to_string(V);
      report.expect(name == all[i].name, name + " is called " + all[i].name);
      report.expect((all[i].shared_bytes == Attention<BF16, QK, V>::shared_bytes), name + ": shared memory");
      report.expect((all[i].threads == Tile<BF16, QK>::threads), name + ": threads");
      report.expect(all[i].shared_bytes <= 99 * 1024, name + " does not fit into a block of sm_120");
    }
  report.expect(found == 2, "not one of each dtype");
}

}  // namespace

int main() {
  return Report::run([&] {
    fp8();
    finite<BF16>(Format::bf16);
    finite<FP16>(Format::fp16);
    {
      Report report("facts of the attention kernels");
      int count = 0;
      const mla_cuda_attention_kernel* all = mla_cuda_attention_kernels(&count);
      facts<192, 128>(report, all, count);
      facts<192, 256>(report, all, count);
      facts<256, 256>(report, all, count);
      facts<128, 128>(report, all, count);
      facts<128, 64>(report, all, count);
      report.expect(count == 10, "others than these");
    }
  });
}
