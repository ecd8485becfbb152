/// FLASHINFER (vLLM: flashinfer.FlashInferPrefillBackend): plan and run.
/// `prepareMetadata` plans the new tokens and every announced chunk, before any
/// run and for the dtype of the one before, with split-KV at points that depend on the
/// request alone.
struct FlashInferContract: NativeContract {
  var splitRule: SplitRule { .fixedRanges }
  var plansAhead: Bool { true }
}
