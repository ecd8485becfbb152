import MLAKernelABI
import MLAShims

/// Divides by the sums, turns the outputs back into rows and writes them. Whatever
/// the format, it rounds the very fp32 result, times out_multiplier for fp8, once.
@inline(__always)
func finishTile<Row: QueryRow>(
  _ state: OnlineSoftmax<Row>, _ a: mla_attend_args, _ scratch: TileScratch
) {
  let zero = FloatVector(repeating: 0)
  let one = FloatVector(repeating: 1)
  // The scores are no longer needed: their place holds the row constants.
  state.largest.store(scratch.scores)
  state.sum.store(scratch.scores + Row.width)
  state.sum.mapped { mla_select_eq($0, zero, zero, one / $0) }
    .store(scratch.scores + 2 * Row.width)
  if let lse = a.lse { writeLSE(Row.self, lse, count: Int(a.num_queries), scratch.scores) }
  switch Int(a.out_format) {
  case MLA_FORMAT_BFLOAT16: writeOutputs(Row.self, BFloat16Format.self, a, scratch)
  case MLA_FORMAT_FLOAT16: writeOutputs(Row.self, Float16Format.self, a, scratch)
  case MLA_FORMAT_FLOAT8_E4M3FN:
    writeOutputs(
      Row.self, Float8Format.self, a, scratch, times: FloatVector(repeating: a.out_multiplier))
  default: writeOutputs(Row.self, Float32Format.self, a, scratch)
  }
}

/// lse = (largest + log2(sum)) * ln 2; -inf for a query without keys.
@inline(__always)
private func writeLSE<Row: QueryRow>(
  _: Row.Type, _ lse: UnsafeMutablePointer<Float>, count: Int,
  _ constants: UnsafePointer<FloatVector>
) {
  let largest = UnsafeRawPointer(constants).assumingMemoryBound(to: Float.self)
  let sum = UnsafeRawPointer(constants + Row.width).assumingMemoryBound(to: Float.self)
  for query in 0..<count {
    lse[query] = sum[query] == 0 ? -.infinity : largest[query] * ln2 + mla_log(sum[query])
  }
}

@inline(__always)
private func writeOutputs<Row: QueryRow, Format: TargetFormat>(
  _: Row.Type, _: Format.Type, _ a: mla_attend_args, _ scratch: TileScratch,
  times multiplier: FloatVector? = nil
) {
  let dims = Int(a.dims.v_head_dim)
  let rowBytes = Int(a.out_stride) * Format.bytes
  let inverses = scratch.scores + 2 * Row.width
  for vector in 0..<Row.width {
    let rows = min(lanes, Int(a.num_queries) - vector * lanes)
    let out = a.out.unsafelyUnwrapped + vector * lanes * rowBytes
    var d = 0
    while d < dims {
      for i in 0..<lanes {
        scratch.square[i] =
          scratch.outputs[(d + i) * Row.width + vector] * inverses[vector]
      }
      let turned = transpose(scratch.square, scratch.square + lanes)
      var row = 0
      while row < rows {
        let values = multiplier.map { turned[row] * $0 } ?? turned[row]
        storeTail(Format.self, values, out + (row * rowBytes + d * Format.bytes), dims - d)
        row += 1
      }
      d += lanes
    }
  }
}
