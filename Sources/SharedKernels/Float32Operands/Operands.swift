import MLAKernelABI
import MLAShims

// Operands are fp32 numbers: whatever the inputs' format, they are widened once,
// when they are packed. Weights of bf16 left as they are would take half the memory, and a
// shift for every three multiplications: the inner loop then takes 1.34 of the time on AVX2,
// 1.07 on AVX-512 (Zen 5).

/// Elements of a dot product that one operand carries.
@inline(__always) var elementsPerOperand: Int { 1 }

/// The first element of each operand, which has no other.
@inline(__always)
func firstElements(_ operands: FloatVector) -> FloatVector { operands }

@inline(__always)
func addDot(_ acc: FloatVector, _ q: FloatVector, _ b: Float) -> FloatVector {
  mla_multiply_add(q, FloatVector(repeating: b), acc)
}

/// Turns scores into probabilities relative to `reference`, in place: one
/// operand a key. Returns their sum.
@inline(__always)
func exponentiate<Row: QueryRow>(
  _ scores: UnsafeMutablePointer<FloatVector>, keys: Int, reference: Row
) -> Row {
  var sum = Row.repeating(FloatVector(repeating: 0))
  for key in 0..<keys {
    let p = scores + key * Row.width
    let probability = Row.load(p).combined(reference) { exp2($0 - $1) }
    sum = sum.combined(probability) { $0 + $1 }
    probability.store(p)
  }
  return sum
}

/// Widens `v` into panels.
@inline(__always)
func packValues<Format: ElementFormat>(
  _: Format.Type, _ a: mla_pack_args, into block: PackedBlock
) {
  let panels = ValuePanels(a.dims)
  let rowBytes = Int(a.dims.v_head_dim) * Format.bytes
  let rowStride = Int(a.v_stride) * Format.bytes
  let (rows, count) = (a.v.unsafelyUnwrapped, Int(a.num_keys))
  for key in 0..<count {
    let row = rows + key * rowStride
    let ahead =
      rowsAhead(rows, from: key / lanes * lanes, of: count, rowStride: rowStride, next: a.next_v)
      + key % lanes * rowStride
    block.forEachValue(step: key, panels) { vector, p in
      let offset = vector * lanes * Format.bytes
      mla_prefetch(ahead + offset)
      mla_store_f32(p, loadTail(Format.self, row + offset, rowBytes - offset))
    }
  }
}

@inline(never)
func packBlock(_ args: UnsafePointer<mla_pack_args>) {
  let a = args.pointee
  switch Int(a.format) {
  case MLA_FORMAT_BFLOAT16: packBlock(BFloat16Format.self, a)
  case MLA_FORMAT_FLOAT16: packBlock(Float16Format.self, a)
  default: packBlock(Float32Format.self, a)
  }
}

@inline(__always)
func packBlock<Format: ElementFormat>(_: Format.Type, _ a: mla_pack_args) {
  let block = PackedBlock(a.packed.unsafelyUnwrapped, a.dims)
  packKeys(Format.self, a, into: block.keys)
  packValues(Format.self, a, into: block)
}

@inline(__always)
func packQueries<Row: QueryRow>(
  _: Row.Type, _ a: mla_attend_args, into columns: UnsafeMutablePointer<FloatVector>,
  turning square: UnsafeMutablePointer<FloatVector>
) {
  switch Int(a.format) {
  case MLA_FORMAT_BFLOAT16:
    packQueries(Row.self, BFloat16Format.self, a, into: columns, turning: square)
  case MLA_FORMAT_FLOAT16:
    packQueries(Row.self, Float16Format.self, a, into: columns, turning: square)
  default:
    packQueries(Row.self, Float32Format.self, a, into: columns, turning: square)
  }
}

@inline(never)
func packTokens(_ args: UnsafePointer<mla_pack_rows_args>) {
  let a = args.pointee
  switch Int(a.format) {
  case MLA_FORMAT_BFLOAT16: packTokens(BFloat16Format.self, a)
  case MLA_FORMAT_FLOAT16: packTokens(Float16Format.self, a)
  default: packTokens(Float32Format.self, a)
  }
}

@inline(never)
func packWeights(_ args: UnsafePointer<mla_pack_rows_args>) {
  let a = args.pointee
  switch Int(a.format) {
  case MLA_FORMAT_BFLOAT16: packWeights(BFloat16Format.self, a)
  case MLA_FORMAT_FLOAT16: packWeights(Float16Format.self, a)
  default: packWeights(Float32Format.self, a)
  }
}

@inline(never)
func projectBlock(_ args: UnsafePointer<mla_project_block_args>) {
  let a = args.pointee
  switch Int(a.format) {
  case MLA_FORMAT_BFLOAT16: projectBlock(BFloat16Format.self, a)
  case MLA_FORMAT_FLOAT16: projectBlock(Float16Format.self, a)
  default: projectBlock(Float32Format.self, a)
  }
}

/// The operand that begins with the product at `p`, once it has been rounded to
/// an element of a row.
@inline(__always)
func operand<Format: ElementFormat>(
  _: Format.Type, _ p: UnsafePointer<FloatVector>, pitch: Int
) -> FloatVector {
  var element = p[0]
  return withUnsafeMutableBytes(of: &element) {
    let memory = $0.baseAddress.unsafelyUnwrapped
    Format.store(p[0], memory)
    return Format.load(memory)
  }
}
