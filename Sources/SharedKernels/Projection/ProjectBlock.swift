import MLAKernelABI
import MLAShims

/// A block of keys and values, from the register tile of products into the
/// panels of `PackedBlock`.
///
/// Products lie as [weight][token lanes]. For keys that is a step's operand of
/// `lanes` keys, so nothing is turned but the rope; values, whose steps are keys,
/// are turned. Rounding is that of the way over rows in memory.
@inline(__always)
func projectBlock<Format: ElementFormat>(_: Format.Type, _ a: mla_project_block_args) {
  // Products, and behind them a square.
  withStackVectors { products in
    let chunks = TokenChunks(a.num_keys)
    var vector = 0
    while vector < chunks.vectors {
      projectChunk(
        Format.self, a, products, vector: vector, width: chunks.width(from: vector))
      vector += chunks.width
    }
  }
}

/// All weights against a chunk of tokens, which stays in the L1 cache.
@inline(__always)
private func projectChunk<Format: ElementFormat>(
  _: Format.Type, _ a: mla_project_block_args, _ products: UnsafeMutablePointer<FloatVector>,
  vector: Int, width: Int
) {
  let steps = operandSteps(of: Int(a.row_dim))
  let keyDim = operandSteps(a.dims) * elementsPerOperand
  var dim = 0
  while dim < keyDim {
    if dim < Int(a.nope_dim) {
      multiplyPanel(
        a.tokens.unsafelyUnwrapped, a.key_weights.unsafelyUnwrapped, steps: steps, weight: dim,
        vector: vector, width: width, into: products)
      clearPadding(a, products, vector: vector, width: width)
    }
    if dim + lanes > Int(a.nope_dim) {
      turnRope(Format.self, a, products, dim: dim, vector: vector, width: width)
    }
    writeKeys(Format.self, a, products, dim: dim, vector: vector, width: width)
    dim += lanes
  }
  dim = 0
  while dim < Int(a.dims.v_head_dim) {
    multiplyPanel(
      a.tokens.unsafelyUnwrapped, a.value_weights.unsafelyUnwrapped, steps: steps, weight: dim,
      vector: vector, width: width, into: products)
    clearPadding(a, products, vector: vector, width: width)
    writeValues(Format.self, a, products, dim: dim, vector: vector, width: width)
    dim += lanes
  }
}

/// Keys that do not exist are zero, even where a weight is infinite.
@inline(__always)
private func clearPadding(
  _ a: mla_project_block_args, _ products: UnsafeMutablePointer<FloatVector>, vector: Int,
  width: Int
) {
  let last = width - 1
  let keys = Int(a.num_keys) - (vector + last) * lanes
  if keys >= lanes { return }
  let zero = FloatVector(repeating: 0)
  var key = zero
  for lane in 0..<lanes { key[lane] = Float(lane) }
  for row in 0..<lanes {
    let p = products + (row * vectorsPerPanel + last)
    p.pointee = mla_select_ge(key, FloatVector(repeating: Float(keys)), zero, p.pointee)
  }
}

/// The rope's part of the `lanes` dims of keys from `dim` on, turned to lie as
/// products do; zeros behind it.
@inline(__always)
private func turnRope<Format: ElementFormat>(
  _: Format.Type, _ a: mla_project_block_args, _ products: UnsafeMutablePointer<FloatVector>,
  dim: Int, vector: Int, width: Int
) {
  let first = max(Int(a.nope_dim) - dim, 0)
  let bytesDone = max(dim - Int(a.nope_dim), 0) * Format.bytes
  let bytes = Int(a.dims.qk_head_dim - a.nope_dim) * Format.bytes - bytesDone
  let pitch = Int(a.rope_stride) * Format.bytes
  let square = products + lanes * vectorsPerPanel
  for column in 0..<width {
    let key = (vector + column) * lanes
    for row in 0..<lanes {
      square[row] =
        bytes > 0 && key + row < Int(a.num_keys)
        ? loadTail(Format.self, a.rope.unsafelyUnwrapped + ((key + row) * pitch + bytesDone), bytes)
        : FloatVector(repeating: 0)
    }
    turnSquare(square, stride: lanes * 4) { row, turned in
      if first + row < lanes { products[(first + row) * vectorsPerPanel + column] = turned }
    }
  }
}

@inline(__always)
private func writeKeys<Format: ElementFormat>(
  _: Format.Type, _ a: mla_project_block_args, _ products: UnsafePointer<FloatVector>, dim: Int,
  vector: Int, width: Int
) {
  let steps = operandSteps(a.dims)
  let keys = PackedBlock(a.packed.unsafelyUnwrapped, a.dims).keys
  for column in 0..<width {
    let panel = keys + ((vector + column) * lanes * steps + dim / elementsPerOperand * rowsPerGroup)
    for step in 0..<lanes / elementsPerOperand {
      let operand = operand(
        Format.self, products + (step * elementsPerOperand * vectorsPerPanel + column),
        pitch: vectorsPerPanel)
      scatter(operand, to: panel + step * rowsPerGroup, panelStride: steps)
    }
  }
}

@inline(__always)
private func writeValues<Format: ElementFormat>(
  _: Format.Type, _ a: mla_project_block_args, _ products: UnsafeMutablePointer<FloatVector>,
  dim: Int, vector: Int, width: Int
) {
  let block = PackedBlock(a.packed.unsafelyUnwrapped, a.dims)
  let panels = ValuePanels(a.dims)
  let (panel, within) = panels.place(of: dim / lanes)
  let values = block.valuePanel(panel) + within * lanes
  let panelWidth = panels.width(from: panel)
  let square = products + lanes * vectorsPerPanel
  for column in 0..<width {
    turnSquare(products + column, stride: vectorsPerPanel * lanes * 4) { square[$0] = $1 }
    let first = (vector + column) * lanes / elementsPerOperand
    let steps = (Int(a.num_keys) + elementsPerOperand - 1) / elementsPerOperand - first
    for step in 0..<min(steps, lanes / elementsPerOperand) {
      mla_store_f32(
        values + (first + step) * panelWidth * lanes,
        operand(Format.self, square + step * elementsPerOperand, pitch: 1))
    }
  }
}
