import MLAKernelABI
import MLAShims

/// The last group is filled up with zeros; groups without keys are left alone,
/// for no query sees one.
@inline(never)
func packBlock(_ args: UnsafePointer<mla_pack_args>?) {
  let a = args.unsafelyUnwrapped.pointee
  let layout = PackedLayout(a.dims)
  let packed = a.packed.unsafelyUnwrapped
  let groups = (Int(a.num_keys) + groupKeys - 1) / groupKeys
  for group in 0..<groups {
    let rows = min(groupKeys, Int(a.num_keys) - group * groupKeys)
    packLeftRows(
      a.k.unsafelyUnwrapped + group * groupKeys * Int(a.k_stride) * 2, pitch: Int(a.k_stride) * 2,
      rowBytes: Int(a.dims.qk_head_dim) * 2, rows: rows, steps: layout.depthSteps,
      into: packed + group * layout.keyGroupBytes)
    packValues(
      a, group, rows: rows, layout,
      into: packed + (layout.valuesOffset + group * layout.valueGroupBytes))
  }
}

/// Values are turned: a tile's row is one dim of 32 keys.
@inline(__always)
private func packValues(
  _ a: mla_pack_args, _ group: Int, rows: Int, _ layout: PackedLayout,
  into tiles: UnsafeMutableRawPointer
) {
  let pitch = Int(a.v_stride) * 2
  let first = a.v.unsafelyUnwrapped + group * groupKeys * pitch
  withUnsafeTemporaryAllocation(of: FloatVector.self, capacity: lanes) {
    let spare = $0.baseAddress.unsafelyUnwrapped
    for half in 0..<2 * layout.valueSteps {
      let tile = (tiles + (half / 2 * layout.valueStepBytes + half % 2 * tileBytes))
        .assumingMemoryBound(to: FloatVector.self)
      let bytes = Int(a.dims.v_head_dim) * 2 - half * 32
      for pair in 0..<16 {
        let even = loadValues(first + (2 * pair * pitch + half * 32), 2 * pair < rows ? bytes : 0)
        let odd = loadValues(
          first + ((2 * pair + 1) * pitch + half * 32), 2 * pair + 1 < rows ? bytes : 0)
        // Widened bf16 has its bits on top: shifting one of them down pairs them.
        tile[pair] = mla_from_bits((mla_bits(even) &>> 16) | mla_bits(odd))
      }
      transposeTile(tile, spare)
    }
  }
}

/// 16 values of a row of which `bytes` are left, zeros beyond.
@inline(__always)
private func loadValues(_ p: UnsafeRawPointer, _ bytes: Int) -> FloatVector {
  bytes > 0 ? loadTail(BFloat16Format.self, p, bytes) : FloatVector(repeating: 0)
}
