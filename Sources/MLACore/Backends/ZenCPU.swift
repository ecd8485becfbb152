/// ZEN_CPU (vLLM: zen_cpu_sdpa.ZenCPUSDPAMLAPrefillBackend): as CPU, on AMD
/// hosts with AVX512_BF16; the selector sees to that.
struct ZenCPUContract: NativeContract {
  let numHeads: Int
  var splitRule: SplitRule { .byCost(numHeads: numHeads) }
}
