import MLAKernelABI
import MLAShims

/// Rows of a call: as keys they are operands as they lie, pairs of neighbouring elements;
/// their values are brought into pairs of neighbouring rows.
struct RowBlock {
  /// Up to a whole group, the last row repeated: its score is masked.
  let rows: UnsafePointer<UnsafePointer<Float>>
  private let values: PackedBlock

  @inline(__always)
  init(_ a: mla_attend_rows_args, in memory: UnsafeMutableRawPointer) {
    let places = memory.assumingMemoryBound(to: UnsafePointer<Float>.self)
    rows = UnsafePointer(places)
    values = PackedBlock(memory + Self.placesBytes, Self.valueDims(a.dims))
    let count = Int(a.num_rows)
    var row = 0
    while row < (count + rowsPerGroup - 1) / rowsPerGroup * rowsPerGroup {
      places[row] = Self.row(min(row, count - 1), a).assumingMemoryBound(to: Float.self)
      row += 1
    }
    pairValues(a)
  }

  @inline(__always)
  private func pairValues(_ a: mla_attend_rows_args) {
    let panels = ValuePanels(a.dims)
    let count = Int(a.num_rows)
    var row = 0
    while row < count {
      let even = Self.row(row, a)
      let odd = Self.row(min(row + 1, count - 1), a)
      let mask: UInt32 = row + 1 < count ? 0xffff_0000 : 0
      values.forEachValue(step: row / 2, panels) { vector, p in
        let low = mla_load_u16(even + vector * lanes * 2)
        let high = mla_load_u16(odd + vector * lanes * 2) &<< 16
        mla_store_f32(p, mla_from_bits(low | (high & mask)))
      }
      row += 2
    }
  }

  @inline(__always)
  private static func row(_ row: Int, _ a: mla_attend_rows_args) -> UnsafeRawPointer {
    a.rows.unsafelyUnwrapped[row].unsafelyUnwrapped
  }

  @inline(__always) var valueColumns: ValueColumns { values.valueColumns }

  /// Without keys.
  @inline(__always)
  private static func valueDims(_ dims: mla_kernel_dims) -> mla_kernel_dims {
    mla_kernel_dims(qk_head_dim: 0, v_head_dim: dims.v_head_dim)
  }

  @inline(__always) private static var placesBytes: Int { keyBlock * 8 }

  @inline(__always)
  static func bytes(_ dims: mla_kernel_dims) -> Int {
    placesBytes + Int(packedBlockBytes(valueDims(dims)))
  }
}
