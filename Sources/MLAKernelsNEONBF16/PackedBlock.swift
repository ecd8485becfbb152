import MLAKernelABI
import MLAShims

/// One block of keys and values:
///
///     keys    [keyBlock / group][step][pair]      step = four elements of keys
///     values  sets of columns (see `ColumnSet`)   step = four keys, column = value dimension
///
/// Values are filled with zeros up to a whole step, for zero times a NaN left behind is a NaN;
/// scores of keys that do not exist are masked.
struct PackedBlock {
  let keys: UnsafeMutablePointer<RowPair>
  private let values: UnsafeMutablePointer<FloatVector>
  private let valueDims: Int
  let keySteps: Int

  @inline(__always)
  init(_ start: UnsafeMutableRawPointer, _ dims: mla_kernel_dims) {
    keySteps = steps(of: Int(dims.qk_head_dim))
    valueDims = Int(dims.v_head_dim)
    keys = start.assumingMemoryBound(to: RowPair.self)
    values = UnsafeMutableRawPointer(keys + keyBlock / 2 * keySteps)
      .assumingMemoryBound(to: FloatVector.self)
  }

  @inline(__always)
  var bytes: Int { keyBlock * (keySteps * elementsPerStep + fours(of: valueDims) * 4) * 2 }

  @inline(__always)
  func group(_ index: Int) -> UnsafeMutablePointer<RowPair> {
    keys + index * keySteps * pairsPerGroup
  }

  /// Half a group of keys.
  @inline(__always)
  func half(_ index: Int) -> UnsafeMutablePointer<RowPair> {
    group(index / 2) + index % 2 * (pairsPerGroup / 2)
  }

  @inline(__always)
  func valueSet(from first: Int) -> ColumnSet {
    ColumnSet(of: valueDims, at: values, from: first, steps: keyBlock / elementsPerStep)
  }

  @inline(__always)
  func forEachValueSet(_ body: (_ firstVector: Int, _ set: ColumnSet) -> Void) {
    forEachSet(of: valueDims, at: values, steps: keyBlock / elementsPerStep, body)
  }
}

@inline(never)
func packedBlockBytes(_ dims: mla_kernel_dims) -> Int64 {
  Int64(PackedBlock(UnsafeMutableRawPointer(bitPattern: 64).unsafelyUnwrapped, dims).bytes)
}

@inline(never)
func packBlock(_ args: UnsafePointer<mla_pack_args>) {
  let a = args.pointee
  let block = PackedBlock(a.packed.unsafelyUnwrapped, a.dims)
  packGroups(
    SourceRows(
      a.k.unsafelyUnwrapped, stride: a.k_stride, dim: a.dims.qk_head_dim, count: a.num_keys,
      next: a.next_k), into: block.keys)
  let values = SourceRows(
    a.v.unsafelyUnwrapped, stride: a.v_stride, dim: a.dims.v_head_dim, count: a.num_keys,
    next: a.next_v)
  for key in stride(from: 0, to: values.count, by: elementsPerStep) {
    packValues(values, from: key, into: block)
  }
}

/// A step's four keys.
@inline(__always)
private func packValues(_ rows: SourceRows, from key: Int, into block: PackedBlock) {
  let (stride, left) = (rows.strideBytes, rows.count - key)
  let row = rows.start + key * stride
  let ahead = rows.ahead(of: key)
  block.forEachValueSet { first, set in
    for vector in 0..<set.vectors {
      let offset = (first + vector) * 16
      for i in 0..<elementsPerStep { mla_prefetch(ahead + i * stride + offset) }
      @inline(__always) func pair(_ i: Int) -> FloatVector {
        loadRowPair(
          row + (i * stride + offset), stride: stride, count: left - i,
          bytes: rows.rowBytes - offset)
      }
      storeColumns(pair(0), pair(2), to: set, vector, step: key / elementsPerStep)
    }
  }
}

/// A vector of columns: a step's four rows of each.
@inline(__always)
func storeColumns(
  _ a: FloatVector, _ b: FloatVector, to set: ColumnSet, _ vector: Int, step: Int
) {
  let (low, high) = (set.four(2 * vector), set.four(2 * vector + 1))
  low.start[step * low.stride] = mla_turn_low(a, b)
  high.start[step * high.stride] = mla_turn_high(a, b)
}
