import MLAKernelABI
import MLAShims

/// A block of keys and values, from the products' rows into the layout of `PackedBlock`.
/// Rounding is that of the way over rows in memory.
@inline(never)
func projectBlock(_ args: UnsafePointer<mla_project_block_args>) {
  let a = args.pointee
  let block = PackedBlock(a.packed.unsafelyUnwrapped, a.dims)
  if let weights = a.key_weights, a.nope_dim > 0 {
    forEachProduct(
      of: a.tokens.unsafelyUnwrapped, a.num_keys, with: weights, a.nope_dim, rowDim: a.row_dim
    ) { key, first, weights, products in
      for vector in 0..<weights.vectors {
        for row in stride(from: 0, to: rowsPerGroup, by: 2) {
          let pair = roundedPair(a, products + vector, row, of: key)
          storeKeys(
            withRope(a, pair, key: key + row, vector: first + vector), block, key: key + row,
            vector: first + vector)
        }
      }
    }
  }
  writeRope(a, into: block)
  writeValues(a, into: block)
}

/// Two rows of a vector of products as `loadRowPair` would load them: keys that do not exist
/// are zero, even where a weight is infinite.
@inline(__always)
private func roundedPair(
  _ a: mla_project_block_args, _ products: UnsafePointer<FloatVector>, _ row: Int, of key: Int
) -> FloatVector {
  let p = products + row * vectorsPerSet
  let pair = mla_round_rows(p[0], p[vectorsPerSet])
  let zero = FloatVector(repeating: 0)
  let count = Int(a.num_keys) - key - row
  return count >= 2 ? pair : count == 1 ? mla_rows_of(pair, zero) : zero
}

@inline(__always)
private func storeKeys(_ pair: FloatVector, _ block: PackedBlock, key: Int, vector: Int) {
  let place = block.group(key / rowsPerGroup) + (2 * vector * pairsPerGroup + key % rowsPerGroup / 2)
  storeRowPair(pair, place, stepBytes: 64)
}

/// The pair, with what follows the projected dims behind them where these end within the
/// vector.
@inline(__always)
private func withRope(
  _ a: mla_project_block_args, _ pair: FloatVector, key: Int, vector: Int
) -> FloatVector {
  let projected = Int(a.nope_dim) - vector * lanes
  if projected >= lanes { return pair }
  let bytes = min(lanes - projected, Int(a.dims.qk_head_dim - a.nope_dim)) * 2
  var rows = mla_swap_middle(pair)
  withUnsafeMutableBytes(of: &rows) { rows in
    for i in 0..<2 {
      let row = rows.baseAddress.unsafelyUnwrapped + 16 * i
      (row + projected * 2).initializeMemory(
        as: UInt8.self, repeating: 0, count: (lanes - projected) * 2)
      if bytes > 0 && key + i < Int(a.num_keys) {
        (row + projected * 2).copyMemory(
          from: a.rope.unsafelyUnwrapped + (key + i) * Int(a.rope_stride) * 2, byteCount: bytes)
      }
    }
  }
  return mla_swap_middle(rows)
}

/// The vectors of keys that have no projected dims.
@inline(__always)
private func writeRope(_ a: mla_project_block_args, into block: PackedBlock) {
  let stride = Int(a.rope_stride) * 2
  for vector in vectors(of: Int(a.nope_dim))..<block.keySteps / 2 {
    let first = vector * lanes - Int(a.nope_dim)
    let bytes = (Int(a.dims.qk_head_dim - a.nope_dim) - first) * 2
    for key in Swift.stride(from: 0, to: vectors(of: Int(a.num_keys)) * lanes, by: 2) {
      let pair = loadRowPair(
        a.rope.unsafelyUnwrapped + (key * stride + first * 2), stride: stride,
        count: Int(a.num_keys) - key, bytes: bytes)
      storeKeys(pair, block, key: key, vector: vector)
    }
  }
}

@inline(__always)
private func writeValues(_ a: mla_project_block_args, into block: PackedBlock) {
  let weights = a.value_weights.unsafelyUnwrapped
  forEachProduct(
    of: a.tokens.unsafelyUnwrapped, a.num_keys, with: weights, a.dims.v_head_dim,
    rowDim: a.row_dim
  ) { key, first, _, products in
    let set = block.valueSet(from: first)
    for row in stride(from: 0, to: min(rowsPerGroup, Int(a.num_keys) - key), by: elementsPerStep) {
      for vector in 0..<set.vectors {
        storeColumns(
          roundedPair(a, products + vector, row, of: key),
          roundedPair(a, products + vector, row + 2, of: key), to: set, vector,
          step: (key + row) / elementsPerStep)
      }
    }
  }
}
