import CMLAPrefill
import MLATestSupport

/// How the contexts of a step lie in a cache.
struct CacheLayout {
  var model: CacheModel
  var blockSize: Int
  /// Of a tensor of their own for rotary parts; nil: there is none.
  var ropeFormat: ElementFormat?
  /// Blocks are as long as the longest context, one for each request, without a table.
  var isDense = false
  /// Contexts begin anywhere in their blocks.
  var isPadded = false
  /// Rows of the table are found by number, in no order and with others between them.
  var hasTableRows = false
  /// Blocks follow each other in the table as in memory, but for a few.
  var isInOrder = false
  /// Blocks of one token have no dimension for it.
  var isFlat = false
}

/// A cache with the contexts of a step in it, everything else in it being poison.
final class StepCache {
  let layout: CacheLayout
  /// [blocks, slots, width].
  let tensor: PoisonedTensor
  /// nil: tensor holds rotary parts, too.
  let rope: PoisonedTensor?
  let maxBlocks: Int
  /// Wider than the rows are.
  let tableStride: Int
  var table: [Int32]
  var starts: [Int32]
  var tableRows: [Int32]
  let tableRowCount: Int

  init(
    _ layout: CacheLayout, rank: Int, ropeDim: Int, contexts: [Int], _ random: inout SplitMix64
  ) {
    var layout = layout
    starts = contexts.map { _ in layout.isPadded ? Int32(random.int(0...40)) : 0 }
    let ends = zip(starts, contexts).map { Int($0) + $1 }
    if layout.isDense { layout.blockSize = (ends.max() ?? 0) + random.int(1...3) }
    self.layout = layout
    let needed = ends.map { ($0 + layout.blockSize - 1) / layout.blockSize }
    maxBlocks = layout.isDense ? 0 : (needed.max() ?? 0) + 2
    tableStride = layout.isDense ? 0 : maxBlocks + random.int(0...3)
    let numBlocks = layout.isDense ? contexts.count : needed.reduce(0, +) + 3
    // Where blocks follow each other there is no gap between them, mostly.
    let mayFollow = layout.isInOrder && layout.blockSize > 1 && random.chance(0.7)
    let width = layout.model.width(rank: rank, rope: layout.ropeFormat == nil ? ropeDim : 0)
    // Blocks at any alignment, tokens at that of their rotary values.
    tensor = PoisonedTensor(
      layout.model.format, rows: numBlocks, heads: layout.blockSize, dim: width,
      headGap: 2 * random.int(0...2), rowGap: mayFollow ? 0 : random.int(0...9))
    rope = layout.ropeFormat.map { format in
      PoisonedTensor(
        format, rows: numBlocks, heads: layout.blockSize, dim: ropeDim,
        headGap: random.int(0...3), rowGap: mayFollow ? 0 : random.int(0...9))
    }
    tableRowCount = contexts.count + (layout.hasTableRows ? 3 : 0)
    let order = Array(0..<Int32(tableRowCount))
    tableRows = Array(
      (layout.hasTableRows ? order.shuffled(using: &random) : order).prefix(contexts.count))
    table = [Int32](repeating: -77, count: tableRowCount * tableStride)
    if layout.isDense { return }
    var free = Array((0..<Int32(numBlocks)).reversed())
    if layout.isInOrder {
      free.swapAt(numBlocks / 2, 0)
    } else {
      free.shuffle(using: &random)
    }
    for (i, count) in needed.enumerated() {
      for j in Int(starts[i]) / layout.blockSize..<max(count, Int(starts[i]) / layout.blockSize) {
        table[Int(tableRows[i]) * tableStride + j] = free.removeLast()
      }
    }
  }

  func set(_ request: Int, _ token: Int, latents: [Double], rope: [Double]) {
    let (place, slot) = (Int(starts[request]) + token).quotientAndRemainder(
      dividingBy: layout.blockSize)
    let block = layout.isDense ? request : Int(table[Int(tableRows[request]) * tableStride + place])
    guard let ropes = self.rope, let model = ropeModel else {
      return tensor.setSlot(block, slot, layout.model.bits(latents: latents, rope: rope))
    }
    tensor.setSlot(block, slot, layout.model.bits(latents: latents, rope: []))
    ropes.setSlot(block, slot, model.bits(latents: [], rope: rope))
  }

  /// What a reader makes of a token that was stored.
  func stored(latents: [Double], rope: [Double]) -> (latents: [Double], rope: [Double]) {
    let (model, rank) = (layout.model, latents.count)
    guard let ropeModel else {
      return model.values(model.bits(latents: latents, rope: rope), rank: rank)
    }
    return (
      model.values(model.bits(latents: latents, rope: []), rank: rank).latents,
      ropeModel.values(ropeModel.bits(latents: [], rope: rope), rank: 0).rope
    )
  }

  /// The scale is that of both tensors, as far as they are fp8.
  private var ropeModel: CacheModel? {
    layout.ropeFormat.map { format in
      guard format == .float8E4M3FN, case .plain(_, let scale) = layout.model else {
        return .plain(format)
      }
      return .plain(format, scale: scale)
    }
  }

  /// Calls `body` with the fields that tell where contexts are.
  func withFields<T>(_ body: (StepCacheFields) throws -> T) rethrows -> T {
    let rank: Int32 = layout.isFlat ? 2 : 3
    var tensors = [view(tensor, rank: rank), view(rope ?? tensor, rank: rank)]
    return try tensors.withUnsafeMutableBufferPointer { tensors in
      try table.withUnsafeBufferPointer { table in
        try starts.withUnsafeBufferPointer { starts in
          try tableRows.withUnsafeBufferPointer { rows in
            let first = UnsafePointer(tensors.baseAddress!)
            return try body(
              StepCacheFields(
                cache: first, ropeCache: rope == nil ? nil : first + 1,
                table: layout.isDense ? nil : table.baseAddress,
                starts: layout.isPadded ? starts.baseAddress : nil,
                tableRows: layout.hasTableRows ? rows.baseAddress : nil))
          }
        }
      }
    }
  }
}

/// NULL for what a layout does without.
struct StepCacheFields {
  let cache: UnsafePointer<mla_tensor>
  let ropeCache: UnsafePointer<mla_tensor>?
  let table: UnsafePointer<Int32>?
  let starts: UnsafePointer<Int32>?
  let tableRows: UnsafePointer<Int32>?
}
