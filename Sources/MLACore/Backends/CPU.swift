/// CPU (vLLM: cpu_sdpa.CPUSDPAMLAPrefillBackend), and ZEN_CPU
/// (zen_cpu_sdpa.ZenCPUSDPAMLAPrefillBackend), which the selector chooses on AMD hosts with
/// AVX512_BF16: whatever the cost model says is best for each request.
struct CPUContract: NativeContract {
  let numHeads: Int
  var splitRule: SplitRule { .byCost(numHeads: numHeads) }
}
