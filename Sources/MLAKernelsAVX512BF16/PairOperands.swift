import MLAKernelABI
import MLAShims

// Operands are pairs of bf16: one instruction adds both products, at twice the
// rate of fp32. The inputs are taken as they are, without conversion.

/// Elements of a dot product that one operand carries.
@inline(__always) var elementsPerOperand: Int { 2 }

/// The first element of each operand, and 0 for the second.
@inline(__always)
func firstElements(_ operands: FloatVector) -> FloatVector {
  mla_from_bits(mla_bits(operands) & 0xffff)
}

@inline(__always)
func addDot(_ acc: FloatVector, _ q: FloatVector, _ b: Float) -> FloatVector {
  mla_dot_bf16_pair(q, b, acc)
}

/// Two neighbouring elements of a row as they lie in memory.
enum BFloat16PairFormat: ElementFormat {
  @inline(__always) static var bytes: Int { 4 }
  @inline(__always) static func load(_ p: UnsafeRawPointer) -> FloatVector { mla_load_f32(p) }
  @inline(__always) static func store(_ v: FloatVector, _ p: UnsafeMutableRawPointer) {
    mla_store_f32(p, v)
  }
}

/// Turns scores into probabilities relative to `reference`, in place: one
/// operand for two keys. Returns the sum of the unrounded probabilities. Tiny ones are
/// not cleared: the instruction that multiplies them takes and gives 0 for subnormal
/// numbers.
@inline(__always)
func exponentiate<Row: QueryRow>(
  _ scores: UnsafeMutablePointer<FloatVector>, keys: Int, reference: Row
) -> Row {
  var evenSum = Row.repeating(FloatVector(repeating: 0))
  var oddSum = evenSum
  for pair in 0..<keys / 2 {
    let p = scores + pair * 2 * Row.width
    let even = Row.load(p).combined(reference) { exp2WithTiny($0 - $1) }
    let odd = Row.load(p + Row.width).combined(reference) { exp2WithTiny($0 - $1) }
    evenSum = evenSum.combined(even) { $0 + $1 }
    oddSum = oddSum.combined(odd) { $0 + $1 }
    even.combined(odd, mla_pair_bf16).store(scores + pair * Row.width)
  }
  return evenSum.combined(oddSum) { $0 + $1 }
}

/// Pairs the values of neighbouring keys.
@inline(__always)
private func packValues(_ a: mla_pack_args, into block: PackedBlock) {
  let panels = ValuePanels(a.dims)
  let rowStride = Int(a.v_stride) * 2
  let (rows, count) = (a.v.unsafelyUnwrapped, Int(a.num_keys))
  var key = 0
  while key < count {
    let row = rows + key * rowStride
    let ahead =
      rowsAhead(rows, from: key / lanes * lanes, of: count, rowStride: rowStride, next: a.next_v)
      + key % lanes * rowStride
    block.forEachValue(step: key / 2, panels) { vector, p in
      let bytes = (Int(a.dims.v_head_dim) - vector * lanes) * 2
      let even = row + vector * lanes * 2
      mla_prefetch(ahead + vector * lanes * 2)
      mla_prefetch(ahead + rowStride + vector * lanes * 2)
      let low = loadTail(BFloat16Format.self, even, bytes)
      let high =
        key + 1 < count
        ? loadTail(BFloat16Format.self, even + rowStride, bytes) : FloatVector(repeating: 0)
      // Widened bf16 has its bits on top: shifting one of them down pairs them.
      mla_store_f32(p, mla_from_bits((mla_bits(low) &>> 16) | mla_bits(high)))
    }
    key += 2
  }
}

@inline(never)
func packBlock(_ args: UnsafePointer<mla_pack_args>) {
  let a = args.pointee
  let block = PackedBlock(a.packed.unsafelyUnwrapped, a.dims)
  packKeys(BFloat16PairFormat.self, a, into: block.keys)
  packValues(a, into: block)
}

@inline(__always)
func packQueries<Row: QueryRow>(
  _: Row.Type, _ a: mla_attend_args, into columns: UnsafeMutablePointer<FloatVector>,
  turning square: UnsafeMutablePointer<FloatVector>
) {
  packQueries(Row.self, BFloat16PairFormat.self, a, into: columns, turning: square)
}

@inline(never)
func packTokens(_ args: UnsafePointer<mla_pack_rows_args>) {
  packTokens(BFloat16PairFormat.self, args.pointee)
}

@inline(never)
func packWeights(_ args: UnsafePointer<mla_pack_rows_args>) {
  packWeights(BFloat16PairFormat.self, args.pointee)
}

@inline(never)
func projectBlock(_ args: UnsafePointer<mla_project_block_args>) {
  projectBlock(BFloat16Format.self, args.pointee)
}

/// The operand that begins with the product at `p`; the other half of the pair is
/// `pitch` vectors away.
@inline(__always)
func operand<Format: ElementFormat>(
  _: Format.Type, _ p: UnsafePointer<FloatVector>, pitch: Int
) -> FloatVector {
  mla_pair_bf16(p[0], p[pitch])
}
