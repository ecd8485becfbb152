/// What distinguishes one of the library's own backends from another: its
/// schedule and what it asks of a batch. They share validation, execution and
/// kernels (`NativeBackend`).
protocol NativeContract: Sendable {
  /// How requests are cut into tasks.
  var splitRule: SplitRule { get }
  /// Whether `prepareMetadata` makes the plans of all runs, and not each run its own
  /// where none has before.
  var plansAhead: Bool { get }
  /// Whether creating an object makes a small run for its dimensions.
  var warmsUp: Bool { get }
  /// Whether a batch without new tokens still has a result: that of no keys, in every
  /// row that there is.
  var answersEmptyBatches: Bool { get }
  func check(_ metadata: PrefillMetadata) throws(MLAError)
  func check(_ chunk: ContextChunk) throws(MLAError)
}

extension NativeContract {
  var splitRule: SplitRule { .never }
  var plansAhead: Bool { false }
  var warmsUp: Bool { false }
  var answersEmptyBatches: Bool { false }
  func check(_ metadata: PrefillMetadata) throws(MLAError) {}
  func check(_ chunk: ContextChunk) throws(MLAError) {}
}

extension BuiltInBackend {
  func makeContract(_ config: BackendConfig) -> any NativeContract {
    switch self {
    case .flashAttn, .rocmAiterFA: FlashAttnContract()
    case .flashInfer: FlashInferContract()
    case .trtllmRagged: TrtllmRaggedContract()
    case .tokenspeedMLA: TokenspeedMLAContract()
    case .cpu, .zenCPU: CPUContract(numHeads: config.numHeads)
    }
  }
}
