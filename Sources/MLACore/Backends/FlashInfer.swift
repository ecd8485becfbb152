/// FLASHINFER (vLLM: flashinfer.FlashInferPrefillBackend): plan and run.
/// `prepareMetadata` plans the new tokens and every announced chunk once, with
/// split-KV at points that depend on the request alone; all layers and threads
/// share the plan.
struct FlashInferContract: NativeContract {
  var splitRule: SplitRule { .fixedRanges }
  var plansAhead: Bool { true }
}
