import MLAKernelABI
import MLAShims

/// Divides by the sums and writes outputs and lse. Whatever the format, it rounds the
/// very fp32 result, times out_multiplier for fp8, once.
@inline(__always)
func finishTile<Row: QueryRow>(
  _ state: OnlineSoftmax<Row>, _ a: mla_attend_args, _ scratch: TileScratch
) {
  let zero = FloatVector(repeating: 0)
  let one = FloatVector(repeating: 1)
  let sum = state.sum
  sum.mapped { mla_select_eq($0, zero, zero, one / $0) }.store(scratch.constants)
  if let lse = a.lse {
    state.reference.store(scratch.constants + Row.width)
    sum.store(scratch.constants + 2 * Row.width)
    writeLSE(Row.self, lse, count: Int(a.num_queries), scratch.constants + Row.width)
  }
  switch Int(a.out_format) {
  case MLA_FORMAT_BFLOAT16: writeOutputs(BFloat16Format.self, a, scratch)
  case MLA_FORMAT_FLOAT16: writeOutputs(Float16Format.self, a, scratch)
  case MLA_FORMAT_FLOAT8_E4M3FN:
    writeOutputs(Float8Format.self, a, scratch, times: FloatVector(repeating: a.out_multiplier))
  default: writeOutputs(Float32Format.self, a, scratch)
  }
}

/// lse = reference * ln 2 + ln(sum); -inf for a query without keys.
@inline(__always)
private func writeLSE<Row: QueryRow>(
  _: Row.Type, _ lse: UnsafeMutablePointer<Float>, count: Int,
  _ constants: UnsafePointer<FloatVector>
) {
  let reference = UnsafeRawPointer(constants).assumingMemoryBound(to: Float.self)
  let sum = UnsafeRawPointer(constants + Row.width).assumingMemoryBound(to: Float.self)
  for query in 0..<count {
    lse[query] = sum[query] == 0 ? -.infinity : reference[query] * ln2 + mla_log(sum[query])
  }
}

@inline(__always)
private func writeOutputs<Format: TargetFormat>(
  _: Format.Type, _ a: mla_attend_args, _ scratch: TileScratch,
  times multiplier: FloatVector? = nil
) {
  let dims = Int(a.dims.v_head_dim)
  let rowBytes = Int(a.out_stride) * Format.bytes
  let vectors = ValuePanels(a.dims).vectors
  let inverses = UnsafeRawPointer(scratch.constants).assumingMemoryBound(to: Float.self)
  for query in 0..<Int(a.num_queries) {
    let inverse = FloatVector(repeating: inverses[query])
    let out = a.out.unsafelyUnwrapped + query * rowBytes
    for vector in 0..<vectors {
      let values = scratch.outputs[query * vectors + vector] * inverse
      storeTail(
        Format.self, multiplier.map { values * $0 } ?? values, out + vector * lanes * Format.bytes,
        dims - vector * lanes)
    }
  }
}
