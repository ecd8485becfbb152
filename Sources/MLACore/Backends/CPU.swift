/// CPU (vLLM: cpu_sdpa.CPUSDPAMLAPrefillBackend): whatever the cost model says
/// is best for each request.
struct CPUContract: NativeContract {
  let numHeads: Int
  var splitRule: SplitRule { .byCost(numHeads: numHeads) }
}
