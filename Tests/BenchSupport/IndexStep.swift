import CMLAPrefill
import MLATestSupport

/// One request's new tokens, for each of which the lightning indexer selects keys: with the heads of
/// DeepSeek-V3.2's, from a plain cache.
final class IndexStep: @unchecked Sendable {
  private static let (heads, headDim, blockSize) = (64, 128, 64)

  private let library: MLALibrary
  private let q: HostTensor
  private let weights: HostTensor
  private let cache: HostTensor
  private let contextLen: Int
  private let topk: Int
  private let blockTable: [Int32]
  private let maxISA: Int32
  private let indices: UnsafeMutablePointer<Int32>

  init(
    _ library: MLALibrary, newTokens: Int, contextLen: Int, topk: Int, _ kernelCase: KernelCase
  ) {
    (self.library, self.contextLen, self.topk) = (library, contextLen, topk)
    maxISA = kernelCase.isa
    var random = SplitMix64(seed: 13)
    let blocks = (contextLen + newTokens + Self.blockSize - 1) / Self.blockSize
    q = HostTensor(kernelCase.format, rows: newTokens, heads: Self.heads, dim: Self.headDim)
    weights = HostTensor(.float32, rows: newTokens, heads: 0, dim: Self.heads)
    cache = HostTensor(kernelCase.format, rows: blocks, heads: Self.blockSize, dim: Self.headDim)
    for tensor in [q, weights, cache] { tensor.fillNormal(&random) }
    blockTable = Array(0..<Int32(blocks)).shuffled(using: &random)
    indices = .allocate(capacity: newTokens * topk)
  }

  deinit { indices.deallocate() }

  /// Multiplications and additions of all tokens' heads with the keys that they see.
  var operations: Double {
    let new = Double(q.rows)
    return 2 * Double(Self.heads * Self.headDim) * new * (Double(contextLen) + (new + 1) / 2)
  }

  /// - Parameter rows: nil: all.
  func select(rows: Range<Int>? = nil) throws {
    let tensors = [q, weights, cache].map(\.view)
    try tensors.withUnsafeBufferPointer { views in
      try blockTable.withUnsafeBufferPointer { table in
        let (starts, lens) = ([0, Int32(q.rows)], [Int32(contextLen)])
        try starts.withUnsafeBufferPointer { starts in
          try lens.withUnsafeBufferPointer { lens in
            var args = mla_index_select_args()
            args.struct_size = structSize(args)
            args.num_requests = 1
            (args.query_start_loc, args.context_lens) = (starts.baseAddress, lens.baseAddress)
            let first = views.baseAddress!
            (args.q, args.weights, args.index_cache) = (first, first + 1, first + 2)
            args.block_table = table.baseAddress
            args.block_table_stride = Int64(table.count)
            args.max_blocks = Int32(table.count)
            (args.topk_indices, args.topk_stride, args.topk) = (indices, Int64(topk), Int32(topk))
            args.max_isa = maxISA
            if let rows {
              (args.first_row, args.num_rows) = (Int64(rows.lowerBound), Int64(rows.count))
            }
            try library.check(library.selectKeys(&args), "mla_index_select")
          }
        }
      }
    }
  }
}
