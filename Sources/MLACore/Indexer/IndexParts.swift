/// Some of the keys that a block's tokens see, scored by one worker.
struct IndexPart {
  let request: Int
  /// The block's, of q.
  let rows: Range<Int>
  let keys: Range<Int>
  /// Where what it finds is kept, until the others of its block have ended too; nil where it has
  /// the whole block.
  let kept: Int?
}

/// Blocks of tokens, and the parts of those that are more than a thread's share of the work: a
/// few decoded tokens on long contexts would leave threads idle.
struct IndexParts {
  private struct Block {
    var request: Int
    var rows: Range<Int>
    /// That its tokens see.
    var keys: Int
    /// The first of its parts, and of what is kept.
    var part: Int
    var kept: Int
    var count: Int
  }

  private let blocks: FixedArray<Block>
  private let keyBlock: Int
  let count: Int
  let keptCount: Int

  init(_ a: IndexSelectArguments, tokens: Int, keyBlock: Int, threads: Int) throws(MLAError) {
    let count = a.batch.requests.reduce(0) {
      $0 + (a.batch.rows(of: $1).count + tokens - 1) / tokens
    }
    var blocks = try FixedArray<Block>(capacity: count, for: "blocks of a batch")
    var work = 0
    for request in a.batch.requests {
      let all = a.batch.rows(of: request)
      for first in stride(from: all.lowerBound, to: all.upperBound, by: tokens) {
        let rows = first..<min(first + tokens, all.upperBound)
        let seen = a.batch.visibleKeys(rows, of: request)
        let keys = a.scoresKeys(of: seen) ? seen : 0
        blocks.append(Block(request: request, rows: rows, keys: keys, part: 0, kept: 0, count: 1))
        work = saturatingSum(work, saturatingProduct(keys, rows.count))
      }
    }
    let share = max(work / threads, Self.leastProducts / (a.q.shape[1] * a.q.shape[2]), 1)
    (self.count, keptCount) = Self.cut(&blocks, keyBlock, share: share)
    (self.blocks, self.keyBlock) = (blocks, keyBlock)
  }

  /// Worth a thread's waking, and packing queries once more.
  private static let leastProducts = 4 << 20

  /// - Parameter share: products of a token and a key.
  private static func cut(_ blocks: inout FixedArray<Block>, _ keyBlock: Int, share: Int)
    -> (parts: Int, kept: Int)
  {
    var (parts, kept) = (0, 0)
    for i in blocks.indices {
      let work = saturatingProduct(blocks[i].keys, blocks[i].rows.count)
      let most = (blocks[i].keys + keyBlock - 1) / keyBlock
      let count = max(1, min(most, (work + share / 2) / share))
      (blocks[i].part, blocks[i].kept, blocks[i].count) = (parts, kept, count)
      parts += count
      kept += count > 1 ? count : 0
    }
    return (parts, kept)
  }

  subscript(number: Int) -> IndexPart {
    let block = firstNumber(in: blocks.indices) { blocks[$0].part + blocks[$0].count > number }
    return part(number - blocks[block].part, of: blocks[block])
  }

  var blockCount: Int { blocks.count }

  /// Those of a block that has several.
  func parts(of block: Int) -> some Sequence<IndexPart> {
    let block = blocks[block]
    return (0..<(block.count > 1 ? block.count : 0)).lazy.map { part($0, of: block) }
  }

  private func part(_ number: Int, of block: Block) -> IndexPart {
    // Keys are packed by blocks: a part that ended within one would pack it twice.
    let keyBlocks = (block.keys + keyBlock - 1) / keyBlock
    let begin = keyBlocks * number / block.count * keyBlock
    let end = keyBlocks * (number + 1) / block.count * keyBlock
    return IndexPart(
      request: block.request, rows: block.rows, keys: begin..<min(end, block.keys),
      kept: block.count > 1 ? block.kept + number : nil)
  }
}
