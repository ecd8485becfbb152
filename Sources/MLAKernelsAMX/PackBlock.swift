import MLAKernelABI
import MLAShims

/// The last group is filled up with zeros; groups without keys are left alone,
/// for no query sees one.
@inline(never)
func packBlock<Operands: TileOperands>(
  _: Operands.Type, _ args: UnsafePointer<mla_pack_args>
) {
  let a = args.pointee
  let layout = PackedLayout(a.dims, parts: Operands.parts)
  let packed = a.packed.unsafelyUnwrapped
  let groups = (Int(a.num_keys) + groupKeys - 1) / groupKeys
  for group in 0..<groups {
    let key = group * groupKeys
    let rows = min(groupKeys, Int(a.num_keys) - key)
    RowSource<Operands>(
      start: a.k.unsafelyUnwrapped + key * Int(a.k_stride) * Operands.Element.bytes,
      stride: Int(a.k_stride), dim: Int(a.dims.qk_head_dim), rows: rows
    ).packLeft(into: packed + group * layout.keyGroupBytes)
    packValues(
      Operands.self, a, firstKey: key, rows: rows, layout,
      into: packed + (layout.valuesOffset + group * layout.valueGroupBytes))
  }
}

/// Values are turned: a tile's row is one dim of 32 keys.
@inline(__always)
private func packValues<Operands: TileOperands>(
  _: Operands.Type, _ a: mla_pack_args, firstKey: Int, rows: Int, _ layout: PackedLayout,
  into tiles: UnsafeMutableRawPointer
) {
  let element = Operands.Element.bytes
  let pitch = Int(a.v_stride) * element
  let first = a.v.unsafelyUnwrapped + firstKey * pitch
  withUnsafeTemporaryAllocation(of: FloatVector.self, capacity: lanes) {
    let spare = $0.baseAddress.unsafelyUnwrapped
    for half in 0..<2 * layout.valueSteps {
      let done = half * lanes * element
      let bytes = Int(a.dims.v_head_dim) * element - done
      let target = tiles + (half / 2 * layout.valueStepBytes + half % 2 * tileBytes)
      for pair in 0..<pairsPerGroup {
        let even = first + (2 * pair * pitch + done)
        Operands.forEachPart(
          pairing: loadValues(Operands.self, even, 2 * pair < rows ? bytes : 0),
          loadValues(Operands.self, even + pitch, 2 * pair + 1 < rows ? bytes : 0)
        ) {
          mla_store_f32(target + ($0 * partBytes + pair * 64), $1)
        }
      }
      for part in 0..<Operands.parts {
        transposeTile(
          (target + part * partBytes).assumingMemoryBound(to: FloatVector.self), spare)
      }
    }
  }
}

/// 16 values of a row of which `bytes` are left, zeros beyond.
@inline(__always)
private func loadValues<Operands: TileOperands>(
  _: Operands.Type, _ p: UnsafeRawPointer, _ bytes: Int
) -> FloatVector {
  bytes > 0 ? loadTail(Operands.Element.self, p, bytes) : FloatVector(repeating: 0)
}
