import MLAShims

// The two products, each a 2 x 2 block of accumulators: two left and two right
// operands are loaded for four products, so loads never outlast the products.
// Left operands come from the packed block and are streamed, for they outnumber
// what the L1 cache holds; right operands stay in it.
//
// Where operands have parts, a step multiplies them with each other, but for those
// whose product is too small to matter. One pair of operands stays from four
// products to the next:
//
//     two parts    left    1      0  0  1
//                  right   0      0  1  1
//                  loads   2 + 2  2  2  2        10 for 16 products of scores
//                                                 8 for 12 of values
//     three parts  left    2      1  1  0  0  0
//                  right   0      0  1  1  2  0
//                  loads   2 + 2  2  2  2  2  2  14 for 24

/// 32 rows against 32 rows, S^T = K Q^T or latents against weights: fp32
/// [32 left rows][32 right rows].
@inline(__always)
func multiplyRows<Operands: TileOperands, Work: CompanionWork>(
  _: Operands.Type, _ leftRows: UnsafeRawPointer, _ rightRows: UnsafeRawPointer, steps: Int,
  into products: UnsafeMutableRawPointer, prefetching ahead: inout Prefetch,
  besides work: inout Work
) {
  clearAccumulators()
  var left = leftRows
  var right = RightOperand(first: rightRows, pitch: 64, second: tileBytes, nextPart: partBytes)
  for _ in 0..<steps {
    multiplyStep(
      left, right, products: Operands.scoreProducts, prefetching: &ahead, besides: &work)
    left += Operands.parts * partBytes
    right.first += Operands.parts * partBytes
  }
  storeAccumulators(products)
}

/// O^T += V^T P^T for 32 dims of values and the given groups of keys.
@inline(__always)
func multiplyValues<Operands: TileOperands, Work: CompanionWork>(
  _: Operands.Type, _ values: UnsafeRawPointer, _ probabilities: UnsafeRawPointer, groups: Int,
  onto outputs: UnsafeMutableRawPointer, isFirst: Bool, besides work: inout Work
) {
  if isFirst { clearAccumulators() } else { loadAccumulators(outputs) }
  var ahead = Prefetch.nothing
  var left = values
  let pitch = Operands.parts * TileScratch.rowBytes
  var right = RightOperand(
    first: probabilities, pitch: Int64(pitch), second: 64, nextPart: TileScratch.rowBytes)
  for _ in 0..<groups {
    multiplyStep(
      left, right, products: Operands.valueProducts, prefetching: &ahead, besides: &work)
    left += Operands.parts * partBytes
    right.first += groupKeys / 2 * pitch
  }
  storeAccumulators(outputs)
}

/// Where the tiles of a step's right operands lie.
private struct RightOperand {
  var first: UnsafeRawPointer
  /// Bytes from a tile's row to the next.
  let pitch: Int64
  /// Bytes from the first tile of a part to the second.
  let second: Int
  let nextPart: Int
}

/// A step: `products` times four products, one of them where operands have one part.
@inline(__always)
private func multiplyStep<Work: CompanionWork>(
  _ left: UnsafeRawPointer, _ right: RightOperand, products: Int,
  prefetching ahead: inout Prefetch, besides work: inout Work
) {
  if products > 4 {
    streamLeft(left + 2 * partBytes)
    loadRight(right, part: 0)
    multiplyOperands(prefetching: &ahead, besides: &work)
    streamLeft(left + partBytes)
    multiplyOperands(prefetching: &ahead, besides: &work)
    loadRight(right, part: 1)
    multiplyOperands(prefetching: &ahead, besides: &work)
    streamLeft(left)
    multiplyOperands(prefetching: &ahead, besides: &work)
    loadRight(right, part: 2)
    multiplyOperands(prefetching: &ahead, besides: &work)
    loadRight(right, part: 0)
    multiplyOperands(prefetching: &ahead, besides: &work)
  } else if products > 1 {
    streamLeft(left + partBytes)
    loadRight(right, part: 0)
    multiplyOperands(prefetching: &ahead, besides: &work)
    streamLeft(left)
    multiplyOperands(prefetching: &ahead, besides: &work)
    loadRight(right, part: 1)
    multiplyOperands(prefetching: &ahead, besides: &work)
    if products > 3 {
      streamLeft(left + partBytes)
      multiplyOperands(prefetching: &ahead, besides: &work)
    }
  } else {
    streamLeft(left)
    loadRight(right, part: 0)
    multiplyOperands(prefetching: &ahead, besides: &work)
  }
}

@inline(__always)
private func streamLeft(_ p: UnsafeRawPointer) {
  mla_tile_stream_4(p, 64)
  mla_tile_stream_5(p + tileBytes, 64)
}

@inline(__always)
private func loadRight(_ right: RightOperand, part: Int) {
  let p = right.first + part * right.nextPart
  mla_tile_load_6(p, right.pitch)
  mla_tile_load_7(p + right.second, right.pitch)
}

@inline(__always)
private func multiplyOperands<Work: CompanionWork>(
  prefetching ahead: inout Prefetch, besides work: inout Work
) {
  mla_tile_dot_bf16_0_4_6()
  mla_tile_dot_bf16_1_4_7()
  mla_tile_dot_bf16_2_5_6()
  mla_tile_dot_bf16_3_5_7()
  ahead.step()
  work.step()
}

@inline(__always) private var rowPitch: Int64 { 128 }

@inline(__always)
private func clearAccumulators() {
  mla_tile_zero_0()
  mla_tile_zero_1()
  mla_tile_zero_2()
  mla_tile_zero_3()
}

/// 32 rows of 32 fp32 numbers.
@inline(__always)
private func loadAccumulators(_ p: UnsafeRawPointer) {
  mla_tile_load_0(p, rowPitch)
  mla_tile_load_1(p + 64, rowPitch)
  mla_tile_load_2(p + 16 * 128, rowPitch)
  mla_tile_load_3(p + (16 * 128 + 64), rowPitch)
}

@inline(__always)
private func storeAccumulators(_ p: UnsafeMutableRawPointer) {
  mla_tile_store_0(p, rowPitch)
  mla_tile_store_1(p + 64, rowPitch)
  mla_tile_store_2(p + 16 * 128, rowPitch)
  mla_tile_store_3(p + (16 * 128 + 64), rowPitch)
}

/// Brings the next block into the L2 cache, a few lines a step: what comes from
/// further away than that costs a product four times its own time.
struct Prefetch {
  private var next: UnsafeRawPointer
  private let linesPerStep: Int

  /// - Parameter steps: over how many steps `bytes` are spread; 0 bytes: nothing.
  @inline(__always)
  init(_ start: UnsafeRawPointer, bytes: Int, steps: Int) {
    next = start
    linesPerStep = min((bytes / 64 + steps - 1) / steps, 16)
  }

  @inline(__always)
  static var nothing: Prefetch {
    // Never read.
    Prefetch(UnsafeMutableRawPointer(bitPattern: 64).unsafelyUnwrapped, bytes: 0, steps: 1)
  }

  @inline(__always)
  mutating func step() {
    for _ in 0..<linesPerStep {
      mla_prefetch_second_level(next)
      next += 64
    }
  }
}
