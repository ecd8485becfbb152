import MLAKernelABI
import MLAShims

/// Asks for the rows that are to be written, while there is still work to do.
@inline(__always)
func fetchOutputs(_ a: mla_attend_args) {
  let rowBytes = Int(a.dims.v_head_dim) * formatBytes(a.out_format)
  for query in 0..<Int(a.num_queries) {
    let row = a.out.unsafelyUnwrapped + query * Int(a.out_stride) * formatBytes(a.out_format)
    for offset in stride(from: 0, to: rowBytes, by: 64) { mla_prefetch_for_write(row + offset) }
  }
}

@inline(__always)
func formatBytes(_ format: Int32) -> Int {
  switch Int(format) {
  case MLA_FORMAT_FLOAT32, MLA_FORMAT_PARTIAL: 4
  case MLA_FORMAT_FLOAT8_E4M3FN: 1
  default: 2
  }
}

/// Divides by the sums and writes outputs and lse, or partial results as they are.
/// Whatever the format, it rounds the very fp32 result, times out_multiplier for fp8, once.
@inline(__always)
func finishTile<Row: QueryRow>(
  _ softmax: OnlineSoftmax<Row>, _ a: mla_attend_args, _ scratch: TileScratch
) {
  let isPartial = Int(a.out_format) == MLA_FORMAT_PARTIAL
  let one = Row.repeating(FloatVector(repeating: 1))
  (isPartial ? one : softmax.inverse).store(scratch.constants)
  if let lse = a.lse {
    softmax.reference.store(scratch.constants + Row.width)
    softmax.sum.store(scratch.constants + 2 * Row.width)
    writeLSE(Row.self, lse, count: Int(a.num_queries), scratch.constants + Row.width)
  }
  switch Int(a.out_format) {
  case MLA_FORMAT_BFLOAT16: writeOutputs(BFloat16Format.self, a, scratch)
  case MLA_FORMAT_FLOAT16: writeOutputs(Float16Format.self, a, scratch)
  case MLA_FORMAT_FLOAT8_E4M3FN:
    writeOutputs(Float8Format.self, a, scratch, times: FloatVector(repeating: a.out_multiplier))
  default: writeOutputs(Float32Format.self, a, scratch)
  }
  if isPartial { writeStatistics(softmax, a, scratch.constants) }
}

@inline(__always)
private func writeLSE<Row: QueryRow>(
  _: Row.Type, _ lse: UnsafeMutablePointer<Float>, count: Int,
  _ constants: UnsafePointer<FloatVector>
) {
  let reference = UnsafeRawPointer(constants).assumingMemoryBound(to: Float.self)
  let sum = UnsafeRawPointer(constants + Row.width).assumingMemoryBound(to: Float.self)
  for query in 0..<count {
    lse[query] = naturalLSE(reference: reference[query], sum: sum[query])
  }
}

@inline(__always)
private func writeOutputs<Format: TargetFormat>(
  _: Format.Type, _ a: mla_attend_args, _ scratch: TileScratch,
  times multiplier: FloatVector? = nil
) {
  let inverses = UnsafeRawPointer(scratch.constants).assumingMemoryBound(to: Float.self)
  for query in 0..<Int(a.num_queries) {
    writeRow(
      Format.self, a.out.unsafelyUnwrapped + query * Int(a.out_stride) * Format.bytes,
      dims: Int(a.dims.v_head_dim), inverse: FloatVector(repeating: inverses[query]),
      times: multiplier
    ) { scratch.output(of: query, vector: $0, a.dims) }
  }
}

/// Writes a row of which `values` gives the vectors.
@inline(__always)
func writeRow<Format: TargetFormat>(
  _: Format.Type, _ out: UnsafeMutableRawPointer, dims: Int, inverse: FloatVector,
  times multiplier: FloatVector?, _ values: (_ vector: Int) -> FloatVector
) {
  for vector in 0..<(dims + lanes - 1) / lanes {
    let result = values(vector) * inverse
    storeTail(
      Format.self, multiplier.map { result * $0 } ?? result, out + vector * lanes * Format.bytes,
      dims - vector * lanes)
  }
}

/// What ends the rows of partial results.
@inline(__always)
private func writeStatistics<Row: QueryRow>(
  _ softmax: OnlineSoftmax<Row>, _ a: mla_attend_args,
  _ constants: UnsafeMutablePointer<FloatVector>
) {
  softmax.store(constants)
  let statistics = UnsafeRawPointer(constants).assumingMemoryBound(to: Float.self)
  let rows = a.out.unsafelyUnwrapped.assumingMemoryBound(to: Float.self)
  for query in 0..<Int(a.num_queries) {
    let end = rows + (query * Int(a.out_stride) + Int(a.dims.v_head_dim))
    for i in 0..<MLA_PARTIAL_STATISTICS {
      end[i] = statistics[i * Row.width * lanes + query]
    }
  }
}
