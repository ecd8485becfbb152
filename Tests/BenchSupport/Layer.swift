import CMLAPrefill
import Foundation
import MLATestSupport

/// A layer object of the loaded library.
public final class Layer: @unchecked Sendable {
  private let library: MLALibrary
  private let handle: OpaquePointer

  /// - Parameters:
  ///   - algorithm: MLA_LAYER_ALGORITHM_*
  ///   - maxISA: the strongest kernels it may use, MLA_ISA_*; 0: the host's best.
  public init(
    _ library: MLALibrary, dimensions: MLADimensions, weights: HostTensor, algorithm: Int32,
    maxISA: Int32 = 0
  ) throws {
    var config = mla_layer_config()
    config.struct_size = structSize(config)
    config.num_heads = Int32(dimensions.heads)
    config.scale = dimensions.scale
    config.kv_lora_rank = Int32(dimensions.kvLoraRank)
    config.qk_nope_head_dim = Int32(dimensions.nope)
    config.qk_rope_head_dim = Int32(dimensions.rope)
    config.v_head_dim = Int32(dimensions.v)
    config.max_isa = maxISA
    config.algorithm = algorithm
    var created: OpaquePointer?
    var view = weights.view
    try withUnsafePointer(to: &view) { view in
      config.kv_b_proj = view
      try library.check(library.createLayer(&config, &created), "mla_layer_create")
    }
    guard let created else { throw MLALibrary.Failure(description: "no layer object") }
    self.library = library
    handle = created
  }

  /// With random weights, which leave numbers the size that they have.
  public convenience init(
    _ library: MLALibrary, dimensions: MLADimensions, format: ElementFormat, algorithm: Int32,
    maxISA: Int32
  ) throws {
    let weights = HostTensor(
      format, rows: dimensions.heads * (dimensions.nope + dimensions.v), heads: 0,
      dim: dimensions.kvLoraRank)
    var random = SplitMix64(seed: 3)
    weights.fillNormal(&random, deviation: 1 / Double(dimensions.kvLoraRank).squareRoot())
    try self.init(
      library, dimensions: dimensions, weights: weights, algorithm: algorithm, maxISA: maxISA)
  }

  deinit { library.destroyLayer(handle) }

  /// - Parameter selection: the keys that tokens attend to; nil: all that they see.
  public func forward(_ step: LayerStep, out: HostTensor, selection: Selection? = nil) throws {
    let tensors = [step.q, step.latents, step.rope, step.cache, out].map(\.view)
    try tensors.withUnsafeBufferPointer { views in
      try step.queryStarts.withUnsafeBufferPointer { starts in
        try step.contextLens.withUnsafeBufferPointer { lens in
          try step.blockTable.withUnsafeBufferPointer { blocks in
            var args = mla_layer_forward_args()
            args.struct_size = structSize(args)
            args.num_requests = Int32(step.contextLens.count)
            args.query_start_loc = starts.baseAddress
            args.context_lens = lens.baseAddress
            let first = views.baseAddress!
            (args.q, args.kv_c_normed, args.k_pe) = (first, first + 1, first + 2)
            (args.kv_cache, args.out) = (first + 3, first + 4)
            args.block_table = blocks.baseAddress
            args.block_table_stride = Int64(step.maxBlocks)
            args.max_blocks = Int32(step.maxBlocks)
            if let selection {
              args.topk_indices = UnsafePointer(selection.indices)
              args.topk_stride = Int64(selection.topk)
              args.topk = Int32(selection.topk)
            }
            try library.check(library.forwardLayer(handle, &args), "mla_layer_forward")
          }
        }
      }
    }
  }
}

/// A batch of requests: each some new tokens on a context in a paged cache, whose
/// blocks are scattered.
public final class LayerStep: @unchecked Sendable {
  let q: HostTensor
  let latents: HostTensor
  let rope: HostTensor
  let cache: HostTensor
  let queryStarts: [Int32]
  let contextLens: [Int32]
  let blockTable: [Int32]
  let maxBlocks: Int

  public init(
    _ requests: [(newTokens: Int, contextLen: Int)], _ dimensions: MLADimensions,
    format: ElementFormat, blockSize: Int = 16
  ) {
    var random = SplitMix64(seed: 7)
    let tokens = requests.map(\.newTokens).reduce(0, +)
    func tensor(rows: Int, heads: Int, _ dim: Int) -> HostTensor {
      let tensor = HostTensor(format, rows: rows, heads: heads, dim: dim)
      tensor.fillNormal(&random)
      return tensor
    }
    q = tensor(rows: tokens, heads: dimensions.heads, dimensions.qk)
    latents = tensor(rows: tokens, heads: 0, dimensions.kvLoraRank)
    rope = tensor(rows: tokens, heads: 0, dimensions.rope)
    let blocks = requests.map { ($0.contextLen + blockSize - 1) / blockSize }
    let width = max(1, blocks.max() ?? 0)
    let places = Array(0..<Int32(blocks.reduce(0, +))).shuffled(using: &random)
    cache = tensor(
      rows: max(1, places.count), heads: blockSize, dimensions.kvLoraRank + dimensions.rope)
    var (table, starts, used) = ([Int32](), [Int32(0)], 0)
    for (request, count) in zip(requests, blocks) {
      table += places[used..<used + count] + [Int32](repeating: -1, count: width - count)
      starts.append(starts[starts.count - 1] + Int32(request.newTokens))
      used += count
    }
    (queryStarts, blockTable, maxBlocks) = (starts, table, width)
    contextLens = requests.map { Int32($0.contextLen) }
  }
}
