import MLAShims

// The two products, each a 2 x 2 block of accumulators: two left and two right
// operands are loaded for four products, so loads never outlast the products.
// Left operands come from the packed block and are streamed, for they outnumber
// what the L1 cache holds; right operands stay in it. Of 16 queries or fewer there is
// one operand alone: with it two products, and half the accumulators, are left out.
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
///
/// - Parameter halves: products with others are 0.
@inline(__always)
func multiplyRows<Operands: TileOperands, Ahead: LinesAhead, Work: CompanionWork>(
  _: Operands.Type, _ leftRows: UnsafeRawPointer, _ rightRows: UnsafeRawPointer, steps: Int,
  halves: OperandHalves = .all, into products: UnsafeMutableRawPointer,
  prefetching ahead: inout Ahead, besides work: inout Work
) {
  clearAccumulators()
  multiplySteps(
    Operands.self, leftRows, .tiles(rightRows, step: Operands.parts * partBytes), halves,
    steps: steps, products: Operands.scoreProducts, prefetching: &ahead, besides: &work)
  storeAccumulators(products)
}

/// O^T += V^T P^T for 32 dims of values and the given groups of keys.
@inline(__always)
func multiplyValues<Operands: TileOperands, Work: CompanionWork>(
  _: Operands.Type, _ values: UnsafeRawPointer, _ probabilities: UnsafeRawPointer,
  halves: OperandHalves = .all, groups: Int, onto outputs: UnsafeMutableRawPointer,
  isFirst: Bool, besides work: inout Work
) {
  let pitch = Operands.parts * TileScratch.rowBytes
  let right = RightOperand(
    first: probabilities, pitch: Int64(pitch), second: 64, nextPart: TileScratch.rowBytes,
    nextStep: pairsPerGroup * pitch)
  accumulateProducts(
    Operands.self, values, right, halves, groups: groups, onto: outputs, isFirst: isFirst,
    besides: &work)
}

/// O += P V for the same, of probabilities turned and of values as they lie in rows.
@inline(__always)
func multiplyProbabilities<Operands: TileOperands, Work: CompanionWork>(
  _: Operands.Type, _ probabilities: UnsafeRawPointer, _ values: UnsafeRawPointer,
  halves: OperandHalves, groups: Int, onto outputs: UnsafeMutableRawPointer, isFirst: Bool,
  besides work: inout Work
) {
  accumulateProducts(
    Operands.self, probabilities, .tiles(values, step: Operands.parts * partBytes), halves,
    groups: groups, onto: outputs, isFirst: isFirst, besides: &work)
}

@inline(__always)
private func accumulateProducts<Operands: TileOperands, Work: CompanionWork>(
  _: Operands.Type, _ left: UnsafeRawPointer, _ right: RightOperand, _ halves: OperandHalves,
  groups: Int, onto outputs: UnsafeMutableRawPointer, isFirst: Bool, besides work: inout Work
) {
  if isFirst { clearAccumulators() } else { loadAccumulators(outputs) }
  var ahead = Prefetch.nothing
  multiplySteps(
    Operands.self, left, right, halves, steps: groups, products: Operands.valueProducts,
    prefetching: &ahead, besides: &work)
  storeAccumulators(outputs)
}

/// Whether a left and a right operand have a second tile, rows 16 to 31 or columns.
struct OperandHalves {
  let hasSecondLeft: Bool
  let hasSecondRight: Bool

  @inline(__always)
  init(left: Int = 32, right: Int = 32) {
    (hasSecondLeft, hasSecondRight) = (left > lanes, right > lanes)
  }

  @inline(__always) static var all: OperandHalves { OperandHalves() }
  @inline(__always) var areAll: Bool { hasSecondLeft && hasSecondRight }
}

/// Where the tiles of a step's right operands lie.
private struct RightOperand {
  var first: UnsafeRawPointer
  /// Bytes from a tile's row to the next.
  let pitch: Int64
  /// Bytes from the first tile of a part to the second.
  let second: Int
  let nextPart: Int
  let nextStep: Int

  /// Of whole tiles, those of a part side by side.
  @inline(__always)
  static func tiles(_ first: UnsafeRawPointer, step: Int) -> RightOperand {
    RightOperand(
      first: first, pitch: 64, second: tileBytes, nextPart: partBytes, nextStep: step)
  }
}

@inline(__always)
private func multiplySteps<Operands: TileOperands, Ahead: LinesAhead, Work: CompanionWork>(
  _: Operands.Type, _ leftOperand: UnsafeRawPointer, _ rightOperand: RightOperand,
  _ halves: OperandHalves, steps: Int, products: Int, prefetching ahead: inout Ahead,
  besides work: inout Work
) {
  @inline(__always)
  func multiply(_ halves: OperandHalves, _ ahead: inout Ahead, _ work: inout Work) {
    var (left, right) = (leftOperand, rightOperand)
    for _ in 0..<steps {
      multiplyStep(left, right, halves, products: products, prefetching: &ahead, besides: &work)
      left += Operands.parts * partBytes
      right.first += right.nextStep
    }
  }
  // Once for all steps: the vector unit has little time left for what tells them apart.
  if halves.areAll {
    multiply(.all, &ahead, &work)
  } else {
    multiply(halves, &ahead, &work)
  }
}

/// A step: `products` times four products, one of them where operands have one part.
@inline(__always)
private func multiplyStep<Ahead: LinesAhead, Work: CompanionWork>(
  _ left: UnsafeRawPointer, _ right: RightOperand, _ halves: OperandHalves, products: Int,
  prefetching ahead: inout Ahead, besides work: inout Work
) {
  if products > 4 {
    streamLeft(left + 2 * partBytes, halves)
    loadRight(right, halves, part: 0)
    multiplyOperands(halves, prefetching: &ahead, besides: &work)
    streamLeft(left + partBytes, halves)
    multiplyOperands(halves, prefetching: &ahead, besides: &work)
    loadRight(right, halves, part: 1)
    multiplyOperands(halves, prefetching: &ahead, besides: &work)
    streamLeft(left, halves)
    multiplyOperands(halves, prefetching: &ahead, besides: &work)
    loadRight(right, halves, part: 2)
    multiplyOperands(halves, prefetching: &ahead, besides: &work)
    loadRight(right, halves, part: 0)
    multiplyOperands(halves, prefetching: &ahead, besides: &work)
  } else if products > 1 {
    streamLeft(left + partBytes, halves)
    loadRight(right, halves, part: 0)
    multiplyOperands(halves, prefetching: &ahead, besides: &work)
    streamLeft(left, halves)
    multiplyOperands(halves, prefetching: &ahead, besides: &work)
    loadRight(right, halves, part: 1)
    multiplyOperands(halves, prefetching: &ahead, besides: &work)
    if products > 3 {
      streamLeft(left + partBytes, halves)
      multiplyOperands(halves, prefetching: &ahead, besides: &work)
    }
  } else {
    streamLeft(left, halves)
    loadRight(right, halves, part: 0)
    multiplyOperands(halves, prefetching: &ahead, besides: &work)
  }
}

@inline(__always)
private func streamLeft(_ p: UnsafeRawPointer, _ halves: OperandHalves) {
  mla_tile_stream_4(p, 64)
  if halves.hasSecondLeft { mla_tile_stream_5(p + tileBytes, 64) }
}

@inline(__always)
private func loadRight(_ right: RightOperand, _ halves: OperandHalves, part: Int) {
  let p = right.first + part * right.nextPart
  mla_tile_load_6(p, right.pitch)
  if halves.hasSecondRight { mla_tile_load_7(p + right.second, right.pitch) }
}

@inline(__always)
private func multiplyOperands<Ahead: LinesAhead, Work: CompanionWork>(
  _ halves: OperandHalves, prefetching ahead: inout Ahead, besides work: inout Work
) {
  mla_tile_dot_bf16_0_4_6()
  if halves.hasSecondRight { mla_tile_dot_bf16_1_4_7() }
  if halves.hasSecondLeft { mla_tile_dot_bf16_2_5_6() }
  if halves.hasSecondLeft && halves.hasSecondRight { mla_tile_dot_bf16_3_5_7() }
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

/// What is on its way into the L2 cache, a few lines with each four products: what comes
/// from further away than that costs a product four times its own time.
protocol LinesAhead {
  mutating func step()
}

/// Memory in one piece, the next block's.
struct Prefetch: LinesAhead {
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
