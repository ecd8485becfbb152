import MLAKernelABI

/// Some keys of one request, and where their rows of k and v go.
struct RowSpan {
  /// Numbered as in `LayerBatch.keyBegins`.
  let keys: Range<Int>
  /// The first key's.
  let row: Int
}

/// As many keys of a span, and heads, as a worker makes at once.
struct RowTask {
  let span: RowSpan
  let heads: Range<Int>
}

extension LatentKeys {
  func rowTasks(_ spans: [RowSpan]) -> [RowTask] {
    let (rows, numHeads) = (Int(attention.key_block), config.attention.numHeads)
    return spans.flatMap { span in
      stride(from: 0, to: span.keys.count, by: rows).flatMap { first in
        let keys = span.keys.dropFirst(first).prefix(rows)
        return stride(from: 0, to: numHeads, by: Self.headsPerTask).map { head in
          RowTask(
            span: RowSpan(keys: keys, row: span.row + first),
            heads: head..<min(head + Self.headsPerTask, numHeads))
        }
      }
    }
  }

  /// Writes keys and values as rows of tensors [rows, heads, dim], for a backend
  /// that wants them whole.
  func write(
    _ task: RowTask, to k: TensorView, _ v: TensorView, scratch: UnsafeMutableRawPointer
  ) {
    let count = task.span.keys.count
    func rows(_ tensor: TensorView, _ head: Int, from first: Int = 0) -> LatentGather.Rows {
      LatentGather.Rows(
        out: tensor.row(task.span.row, head: head) + first * config.type.bytes,
        stride: tensor.strides[0])
    }
    let nope = config.attention.qkNopeHeadDim
    let rope = rows(k, task.heads.lowerBound, from: nope)
    let tokens = packedTokens(of: task.span.keys, rope: rope, scratch: scratch)
    for head in task.heads {
      project(tokens, count, head: head, keys: rows(k, head), values: rows(v, head))
      if head > task.heads.lowerBound { copyRope(rope, to: rows(k, head, from: nope), count) }
    }
  }

  private func copyRope(_ source: LatentGather.Rows, to target: LatentGather.Rows, _ count: Int) {
    let strideBytes = source.stride * config.type.bytes
    for row in 0..<count {
      (target.out + row * strideBytes).copyMemory(
        from: source.out + row * strideBytes,
        byteCount: config.attention.qkRopeHeadDim * config.type.bytes)
    }
  }
}
