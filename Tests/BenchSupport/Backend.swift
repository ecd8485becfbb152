import CMLAPrefill
import MLATestSupport

/// Dimensions of a model's MLA, and how it scales scores.
public struct MLADimensions: Sendable {
  public var nope = 128
  public var rope = 64
  public var v = 128
  public var kvLoraRank = 512
  public var heads = 16

  public init(nope: Int = 128, rope: Int = 64, v: Int = 128, heads: Int = 16) {
    (self.nope, self.rope, self.v, self.heads) = (nope, rope, v, heads)
  }

  public var qk: Int { nope + rope }
  public var scale: Double { 1 / Double(qk).squareRoot() }

  /// FLOPs of causal attention over one request of `tokens`.
  public func causalFLOPs(tokens: Int) -> Double {
    Double(tokens) * Double(tokens) / 2 * 2 * Double(qk + v) * Double(heads)
  }
}

/// A backend object of the loaded library.
public final class Backend: @unchecked Sendable {
  public let name: String
  private let library: MLALibrary
  private let handle: OpaquePointer

  /// - Parameters:
  ///   - name: nil: the selector's choice.
  ///   - maxISA: the strongest kernels it may use, MLA_ISA_*; 0: the host's best.
  public init(
    _ library: MLALibrary, name: String? = nil, dimensions: MLADimensions,
    format: ElementFormat = .bfloat16, scale: Double? = nil, maxISA: Int32 = 0
  ) throws {
    let chosen = try name ?? Self.select(library, dimensions, format)
    var config = mla_backend_config()
    config.struct_size = structSize(config)
    config.num_heads = Int32(dimensions.heads)
    config.scale = scale ?? dimensions.scale
    config.kv_lora_rank = Int32(dimensions.kvLoraRank)
    config.qk_nope_head_dim = Int32(dimensions.nope)
    config.qk_rope_head_dim = Int32(dimensions.rope)
    config.v_head_dim = Int32(dimensions.v)
    config.max_isa = maxISA
    var created: OpaquePointer?
    try library.check(library.createBackend(chosen, &config, &created), "mla_backend_create")
    guard let created else { throw MLALibrary.Failure(description: "no backend object") }
    self.name = chosen
    self.library = library
    handle = created
  }

  deinit { library.destroyBackend(handle) }

  private static func select(
    _ library: MLALibrary, _ dimensions: MLADimensions, _ format: ElementFormat
  ) throws -> String {
    var config = mla_selector_config()
    config.struct_size = structSize(config)
    config.dtype = format.rawValue
    config.qk_nope_head_dim = Int32(dimensions.nope)
    config.qk_rope_head_dim = Int32(dimensions.rope)
    config.v_head_dim = Int32(dimensions.v)
    config.capability_major = -1
    config.capability_minor = -1
    var name: UnsafePointer<CChar>?
    try library.check(library.selectBackend(&config, &name), "mla_select_backend")
    return String(cString: name!)
  }

  public func prepare(queryStarts: [Int32]) throws {
    try queryStarts.withUnsafeBufferPointer { starts in
      var metadata = mla_prefill_metadata()
      metadata.struct_size = structSize(metadata)
      metadata.num_requests = Int32(starts.count - 1)
      metadata.query_start_loc = starts.baseAddress
      try library.check(library.prepareMetadata(handle, &metadata), "mla_prepare_metadata")
    }
  }

  public func runNewTokens(
    q: HostTensor, k: HostTensor, v: HostTensor, out: HostTensor, lse: HostTensor
  ) throws {
    try withViews([q, k, v, out, lse]) { views in
      var args = mla_new_tokens_args()
      args.struct_size = structSize(args)
      (args.q, args.k, args.v) = (views, views + 1, views + 2)
      (args.out, args.lse) = (views + 3, views + 4)
      try library.check(library.runNewTokens(handle, &args), "mla_run_prefill_new_tokens")
    }
  }

  public func runContextChunk(
    queryStarts: [Int32], keyStarts: [Int32], q: HostTensor, k: HostTensor, v: HostTensor,
    out: HostTensor, lse: HostTensor
  ) throws {
    try withViews([q, k, v, out, lse]) { views in
      try queryStarts.withUnsafeBufferPointer { queries in
        try keyStarts.withUnsafeBufferPointer { keys in
          var chunk = mla_context_chunk()
          chunk.struct_size = structSize(chunk)
          chunk.index = -1
          chunk.num_requests = Int32(queries.count - 1)
          (chunk.query_start_loc, chunk.cu_seq_lens) = (queries.baseAddress, keys.baseAddress)
          try withUnsafePointer(to: chunk) { chunk in
            var args = mla_context_chunk_args()
            args.struct_size = structSize(args)
            args.chunk = chunk
            (args.q, args.k, args.v) = (views, views + 1, views + 2)
            (args.out, args.lse) = (views + 3, views + 4)
            try library.check(
              library.runContextChunk(handle, &args), "mla_run_prefill_context_chunk")
          }
        }
      }
    }
  }
}

/// Lends the tensors' views, one after the other.
func withViews(
  _ tensors: [HostTensor], _ body: (UnsafePointer<mla_tensor>) throws -> Void
) throws {
  try tensors.map(\.view).withUnsafeBufferPointer { try body($0.baseAddress!) }
}
