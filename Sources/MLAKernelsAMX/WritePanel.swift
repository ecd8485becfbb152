import MLAKernelABI
import MLAShims

/// How outputs become 32-bit elements of a row: what is turned at once.
private protocol RowFormat {
  /// Outputs in an element.
  static var outputs: Int { get }
  /// The element that begins with the output at `p`, whose next is `pitch` away.
  static func element(
    _ p: UnsafePointer<FloatVector>, pitch: Int, _ factor: FloatVector, _ multiplier: FloatVector
  ) -> FloatVector
}

private enum Float32Rows: RowFormat {
  @inline(__always) static var outputs: Int { 1 }
  @inline(__always)
  static func element(
    _ p: UnsafePointer<FloatVector>, pitch: Int, _ factor: FloatVector, _: FloatVector
  ) -> FloatVector { p[0] * factor }
}

private enum Float16Rows: RowFormat {
  @inline(__always) static var outputs: Int { 2 }
  @inline(__always)
  static func element(
    _ p: UnsafePointer<FloatVector>, pitch: Int, _ factor: FloatVector, _: FloatVector
  ) -> FloatVector { mla_pair_f16(p[0] * factor, p[pitch] * factor) }
}

private enum BFloat16Rows: RowFormat {
  @inline(__always) static var outputs: Int { 2 }
  @inline(__always)
  static func element(
    _ p: UnsafePointer<FloatVector>, pitch: Int, _ factor: FloatVector, _: FloatVector
  ) -> FloatVector { mla_pair_bf16(p[0] * factor, p[pitch] * factor) }
}

private enum Float8Rows: RowFormat {
  @inline(__always) static var outputs: Int { 4 }
  @inline(__always)
  static func element(
    _ p: UnsafePointer<FloatVector>, pitch: Int, _ factor: FloatVector, _ multiplier: FloatVector
  ) -> FloatVector {
    // The fp32 result, rounded as such, times the multiplier.
    let low = codes(p[0] * factor * multiplier) | codes(p[pitch] * factor * multiplier) &<< 8
    let high =
      codes(p[2 * pitch] * factor * multiplier) | codes(p[3 * pitch] * factor * multiplier) &<< 8
    return mla_from_bits(low | high &<< 16)
  }

  @inline(__always)
  private static func codes(_ v: FloatVector) -> SIMD16<UInt32> { mla_bits(float8Codes(v)) }
}

extension TileCall {
  /// Divides a panel's outputs by the sums and writes them as rows, and the lse; or
  /// partial results as they are.
  @inline(__always)
  func writePanel(_ panel: Int) {
    switch Int(args.out_format) {
    case MLA_FORMAT_BFLOAT16: writeRows(BFloat16Rows.self, panel)
    case MLA_FORMAT_FLOAT16: writeRows(Float16Rows.self, panel)
    case MLA_FORMAT_FLOAT8_E4M3FN: writeRows(Float8Rows.self, panel)
    default: writeRows(Float32Rows.self, panel)
    }
    if isPartial { writeStatistics(panel) }
    if let lse = args.lse { writeLSE(panel, lse + panel * panelQueries) }
  }

  @inline(__always)
  private func writeRows<Rows: RowFormat>(_: Rows.Type, _ panel: Int) {
    let statistics = scratch.panel(panel).statistics
    let outputs = scratch.panel(panel).outputs.assumingMemoryBound(to: FloatVector.self)
    let spare = scratch.spare.assumingMemoryBound(to: FloatVector.self)
    let element = 4 / Rows.outputs
    let pitch = Int(args.out_stride) * element
    let rowBytes = Int(args.dims.v_head_dim) * element
    // Probabilities are done with: their place holds the tile being turned.
    let tile = scratch.probabilities(0).assumingMemoryBound(to: FloatVector.self)
    let multiplier = FloatVector(repeating: args.out_multiplier)
    let count = queries(of: panel)
    for half in 0..<2 {
      let factor = isPartial ? FloatVector(repeating: 1) : inverse(statistics, half)
      let first = panel * panelQueries + half * lanes
      let rows = min(lanes, count - half * lanes)
      let target = args.out.unsafelyUnwrapped + first * pitch
      var done = 0
      while rows > 0 && done < rowBytes {
        let from = outputs + (done / element * 2 + half)
        // Outputs are padded to 32: four in an element may end in mid-tile.
        let elements = min(lanes, (layout.valueSteps * 32 - done / element) / Rows.outputs)
        for i in 0..<elements {
          tile[i] = Rows.element(from + i * 2 * Rows.outputs, pitch: 2, factor, multiplier)
        }
        transposeTile(tile, spare)
        for row in 0..<rows {
          storeBytes(tile[row], target + (row * pitch + done), rowBytes - done)
        }
        done += 64
      }
    }
  }

  @inline(__always)
  private var isPartial: Bool { Int(args.out_format) == MLA_FORMAT_PARTIAL }

  /// 1 / sum; 0 for a query without keys.
  @inline(__always)
  private func inverse(_ statistics: PanelStatistics, _ half: Int) -> FloatVector {
    let zero = FloatVector(repeating: 0)
    let sum = statistics.sum[half] + statistics.sum[half + 2]
    return mla_select_eq(sum, zero, zero, FloatVector(repeating: 1) / sum)
  }

  @inline(__always)
  private func writeLSE(_ panel: Int, _ lse: UnsafeMutablePointer<Float>) {
    let statistics = scratch.panel(panel).statistics
    for query in 0..<queries(of: panel) {
      let (reference, sum, rest) = statistics.values(query)
      lse[query] = naturalLSE(reference: reference, sum: sum + rest)
    }
  }

  /// What ends the rows of partial results.
  @inline(__always)
  func writeStatistics(_ panel: Int) {
    let statistics = scratch.panel(panel).statistics
    let rows = args.out.unsafelyUnwrapped.assumingMemoryBound(to: Float.self)
    for query in 0..<queries(of: panel) {
      let row = rows + (panel * panelQueries + query) * Int(args.out_stride)
      let end = row + Int(args.dims.v_head_dim)
      (end[0], end[1], end[2]) = statistics.values(query)
    }
  }
}

/// Writes a vector's first `bytes` bytes, at most all of them.
@inline(__always)
func storeBytes(_ v: FloatVector, _ p: UnsafeMutableRawPointer, _ bytes: Int) {
  if bytes >= 64 {
    mla_store_f32(p, v)
    return
  }
  var whole = v
  withUnsafeBytes(of: &whole) {
    p.copyMemory(from: $0.baseAddress.unsafelyUnwrapped, byteCount: bytes)
  }
}
