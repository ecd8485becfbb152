import MLAKernelABI
import MLAShims

/// A block of keys and values, from accumulators into the tiles of `PackedLayout`.
///
/// Products lie as [key][weight]. That is how keys lie in their tiles; values are
/// turned, as packing does. The products of one 32 x 32 block are rounded and
/// written while the tile unit works on the next.
@inline(never)
func projectBlock<Operands: TileOperands>(
  _: Operands.Type, _ args: UnsafePointer<mla_project_block_args>
) {
  let a = args.pointee
  let call = ProjectBlockCall<Operands>(a)
  withStackVectors { first in
    withStackVectors { second in
      if a.nope_dim > 0 {
        call.multiply(
          a.key_weights.unsafelyUnwrapped, count: a.nope_dim, (first, second),
          KeyWriter<Operands>(layout: call.layout, packed: a.packed.unsafelyUnwrapped))
      }
      call.writeRope()
      withUnsafeTemporaryAllocation(of: FloatVector.self, capacity: lanes) { spare in
        call.multiply(
          a.value_weights.unsafelyUnwrapped, count: a.dims.v_head_dim, (first, second),
          ValueWriter<Operands>(
            layout: call.layout, packed: a.packed.unsafelyUnwrapped,
            spare: spare.baseAddress.unsafelyUnwrapped))
      }
    }
  }
}

/// Where 32 keys' products with 32 weights go, a sixteenth of them at a time.
private protocol ProductWriter {
  /// - Parameters:
  ///   - step: which 32 weights.
  ///   - group: which 32 keys, of which the first `keys` exist.
  func write(
    _ part: Int, of products: UnsafePointer<FloatVector>, step: Int, group: Int, keys: Int)
}

/// Two keys a part.
private struct KeyWriter<Operands: TileOperands>: ProductWriter {
  let layout: PackedLayout
  let packed: UnsafeMutableRawPointer

  @inline(__always)
  func write(
    _ part: Int, of products: UnsafePointer<FloatVector>, step: Int, group: Int, keys: Int
  ) {
    for row in 2 * part..<2 * part + 2 {
      let low = Operands.rounded(products[2 * row])
      let high = Operands.rounded(products[2 * row + 1])
      Operands.forEachPart(joining: low, high) {
        mla_store_f32(
          packed + layout.keyOffset(step: step, part: $0, group: group, row: row),
          row < keys ? $1 : FloatVector(repeating: 0))
      }
    }
  }
}

/// Two pairs of keys of 16 dims a part; a tile is turned once its last are there.
private struct ValueWriter<Operands: TileOperands>: ProductWriter {
  let layout: PackedLayout
  let packed: UnsafeMutableRawPointer
  let spare: UnsafeMutablePointer<FloatVector>

  @inline(__always)
  func write(
    _ part: Int, of products: UnsafePointer<FloatVector>, step: Int, group: Int, keys: Int
  ) {
    let half = part / 8
    let zero = FloatVector(repeating: 0)
    let first = packed + (layout.valuesOffset(step: step, group: group) + half * tileBytes)
    for pair in part % 8 * 2..<part % 8 * 2 + 2 {
      let even = 2 * pair < keys ? products[4 * pair + half] : zero
      let odd = 2 * pair + 1 < keys ? products[4 * pair + 2 + half] : zero
      Operands.forEachPart(pairing: Operands.rounded(even), Operands.rounded(odd)) {
        mla_store_f32(first + ($0 * partBytes + pair * 64), $1)
      }
    }
    if part % 8 == 7 {
      for index in 0..<Operands.parts {
        transposeTile(
          (first + index * partBytes).assumingMemoryBound(to: FloatVector.self), spare)
      }
    }
  }
}

/// Writes a finished block of products, a part with each step of the next.
private struct PendingProducts<Writer: ProductWriter>: CompanionWork {
  let writer: Writer
  let products: UnsafePointer<FloatVector>
  let weightStep: Int
  let group: Int
  let keys: Int
  var part = 0

  @inline(__always)
  mutating func step() {
    if part < 16 { write() }
  }

  @inline(__always)
  mutating func finish() {
    while part < 16 { write() }
  }

  @inline(__always)
  private mutating func write() {
    writer.write(part, of: products, step: weightStep, group: group, keys: keys)
    part += 1
  }
}

private struct ProjectBlockCall<Operands: TileOperands> {
  let args: mla_project_block_args
  let layout: PackedLayout

  @inline(__always)
  init(_ args: mla_project_block_args) {
    self.args = args
    layout = PackedLayout(args.dims, parts: Operands.parts)
  }

  /// - Parameter buffers: of a block of products each.
  @inline(__always)
  func multiply<Writer: ProductWriter>(
    _ weights: UnsafeRawPointer, count: Int64,
    _ buffers: (UnsafeMutablePointer<FloatVector>, UnsafeMutablePointer<FloatVector>),
    _ writer: Writer
  ) {
    let groupBytes = rowGroupBytes(Operands.self, args.row_dim)
    var pending = PendingProducts(
      writer: writer, products: buffers.0, weightStep: 0, group: 0, keys: 0, part: 16)
    var isSecond = false
    for step in 0..<projectionSteps(count) {
      for group in 0..<(Int(args.num_keys) + groupKeys - 1) / groupKeys {
        let products = isSecond ? buffers.1 : buffers.0
        var ahead = Prefetch.nothing
        multiplyRows(
          Operands.self, args.tokens.unsafelyUnwrapped + group * groupBytes,
          weights + step * groupBytes, steps: projectionSteps(args.row_dim), into: products,
          prefetching: &ahead, besides: &pending)
        pending.finish()
        pending = PendingProducts(
          writer: writer, products: products, weightStep: step, group: group,
          keys: Int(args.num_keys) - group * groupKeys)
        isSecond.toggle()
      }
    }
    pending.finish()
  }

  /// The rope follows the keys' own dims, perhaps in the middle of a tile's row.
  @inline(__always)
  func writeRope() {
    let (nope, rope) = (Int(args.nope_dim), Int(args.dims.qk_head_dim - args.nope_dim))
    for key in 0..<(Int(args.num_keys) + groupKeys - 1) / groupKeys * groupKeys {
      let exists = key < Int(args.num_keys)
      for step in nope / 32..<layout.depthSteps {
        let first = max(nope - step * 32, 0)
        let done = max(step * 32 - nope, 0)
        let elements =
          exists && rope > done
          ? args.rope.unsafelyUnwrapped
            + (key * Int(args.rope_stride) + done) * Operands.Element.bytes : nil
        Operands.forEachPart(ofAny: elements, (rope - done) * Operands.Element.bytes) {
          let target =
            args.packed.unsafelyUnwrapped
            + layout.keyOffset(
              step: step, part: $0, group: key / groupKeys, row: key % groupKeys)
          storeBytes($1, target + first * 2, 64 - first * 2)
        }
      }
    }
  }
}
