import MLAKernelABI
import MLAShims

/// Rows of a call, widened, an odd number of cache lines apart, so that the same elements of
/// all do not fall into the same few cache sets; keys and values are the same numbers.
struct RowBlock {
  /// Up to a whole group, the last row repeated: its score is masked, and its values are
  /// multiplied by 0 where they count anyhow.
  let rows: UnsafePointer<UnsafePointer<Float>>
  private let values: UnsafePointer<FloatVector>
  private let stride: Int

  @inline(__always)
  init(_ a: mla_attend_rows_args, in memory: UnsafeMutableRawPointer) {
    stride = Self.stride(a.dims)
    let places = memory.assumingMemoryBound(to: UnsafePointer<Float>.self)
    let widened = (memory + Self.placesBytes).assumingMemoryBound(to: Float.self)
    (rows, values) = (
      UnsafePointer(places),
      UnsafeRawPointer(widened).assumingMemoryBound(to: FloatVector.self)
    )
    let count = Int(a.num_rows)
    switch Int(a.format) {
    case MLA_FORMAT_BFLOAT16: widen(BFloat16Format.self, a, to: widened)
    case MLA_FORMAT_FLOAT16: widen(Float16Format.self, a, to: widened)
    default: widen(Float32Format.self, a, to: widened)
    }
    var row = 0
    while row < (count + rowsPerGroup - 1) / rowsPerGroup * rowsPerGroup {
      places[row] = UnsafePointer(widened + min(row, count - 1) * stride)
      row += 1
    }
  }

  @inline(__always)
  private func widen<Format: ElementFormat>(
    _: Format.Type, _ a: mla_attend_rows_args, to widened: UnsafeMutablePointer<Float>
  ) {
    let steps = operandSteps(a.dims)
    for row in 0..<Int(a.num_rows) {
      let source = a.rows.unsafelyUnwrapped[row].unsafelyUnwrapped
      let target = widened + row * stride
      var step = 0
      while step < steps {
        mla_store_f32(target + step, Format.load(source + step * Format.bytes))
        step += lanes
      }
    }
  }

  @inline(__always)
  var valueColumns: ValueColumns {
    ValueColumns(start: values, panelStride: 1, stepStride: stride / lanes)
  }

  /// In elements.
  @inline(__always)
  private static func stride(_ dims: mla_kernel_dims) -> Int {
    ((operandSteps(dims) + 15) / 16 | 1) * 16
  }

  @inline(__always) private static var placesBytes: Int { keyBlock * 8 }

  @inline(__always)
  static func bytes(_ dims: mla_kernel_dims) -> Int { placesBytes + keyBlock * stride(dims) * 4 }
}
