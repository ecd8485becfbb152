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

/// What is to be done for some spans.
struct RowTasks {
  /// A span of keys, and the blocks of those before it.
  private struct Place {
    let span: RowSpan
    let firstBlock: Int
  }

  private var places: FixedArray<Place>
  private var blocks = 0
  private let keysPerTask: Int
  private let numHeads: Int

  /// - Parameter spans: those without keys have no tasks.
  init(_ spans: some Collection<RowSpan>, keysPerTask: Int, numHeads: Int) throws(MLAError) {
    self.keysPerTask = keysPerTask
    self.numHeads = numHeads
    places = try FixedArray(capacity: spans.count, for: "rows of a registered backend's run")
    for span in spans where !span.keys.isEmpty {
      places.append(Place(span: span, firstBlock: blocks))
      blocks += (span.keys.count + keysPerTask - 1) / keysPerTask
    }
  }

  var count: Int { blocks * headGroups }

  private var headGroups: Int {
    (numHeads + LatentKeys.headsPerTask - 1) / LatentKeys.headsPerTask
  }

  subscript(index: Int) -> RowTask {
    let (block, group) = index.quotientAndRemainder(dividingBy: headGroups)
    let place = places[lastNumber(in: places.indices) { places[$0].firstBlock <= block }]
    let first = (block - place.firstBlock) * keysPerTask
    let head = group * LatentKeys.headsPerTask
    return RowTask(
      span: RowSpan(
        keys: place.span.keys.dropFirst(first).prefix(keysPerTask), row: place.span.row + first),
      heads: head..<min(head + LatentKeys.headsPerTask, numHeads))
  }
}

extension LatentKeys {
  /// Writes keys and values as rows of tensors [rows, heads, dim], for a backend
  /// that wants them whole.
  func write(
    _ task: RowTask, to k: TensorView, _ v: TensorView, scratch: UnsafeMutableRawPointer
  ) {
    let count = task.span.keys.count
    func rows(_ tensor: TensorView, _ head: Int, from first: Int = 0) -> RowTarget {
      RowTarget(
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

  private func copyRope(_ source: RowTarget, to target: RowTarget, _ count: Int) {
    let strideBytes = source.stride * config.type.bytes
    for row in 0..<count {
      (target.out + row * strideBytes).copyMemory(
        from: source.out + row * strideBytes,
        byteCount: config.attention.qkRopeHeadDim * config.type.bytes)
    }
  }
}
