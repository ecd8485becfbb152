import MLAShims

// The two products, each a 2 x 2 block of accumulators: two left and two right
// operands are loaded for four products, so loads never outlast the products.
// Left operands come from the packed block and are streamed, for they outnumber
// what the L1 cache holds; right operands stay in it.

/// 32 rows against 32 rows, S^T = K Q^T or latents against weights: fp32
/// [32 left rows][32 right rows].
@inline(__always)
func multiplyRows<Work: CompanionWork>(
  _ leftRows: UnsafeRawPointer, _ rightRows: UnsafeRawPointer, steps: Int,
  into products: UnsafeMutableRawPointer, prefetching ahead: inout Prefetch,
  besides work: inout Work
) {
  clearAccumulators()
  var left = leftRows
  var right = rightRows
  for _ in 0..<steps {
    mla_tile_stream_4(left, 64)
    mla_tile_stream_5(left + tileBytes, 64)
    mla_tile_load_6(right, 64)
    mla_tile_load_7(right + tileBytes, 64)
    multiplyOperands()
    left += 2 * tileBytes
    right += 2 * tileBytes
    ahead.step()
    work.step()
  }
  storeAccumulators(products)
}

/// O^T += V^T P^T for 32 dims of values and the given groups of keys.
@inline(__always)
func multiplyValues<Work: CompanionWork>(
  _ values: UnsafeRawPointer, _ probabilities: UnsafeRawPointer, groups: Int,
  onto outputs: UnsafeMutableRawPointer, isFirst: Bool, besides work: inout Work
) {
  if isFirst { clearAccumulators() } else { loadAccumulators(outputs) }
  var left = values
  var right = probabilities
  for _ in 0..<groups {
    mla_tile_stream_4(left, 64)
    mla_tile_stream_5(left + tileBytes, 64)
    mla_tile_load_6(right, rowPitch)
    mla_tile_load_7(right + 64, rowPitch)
    multiplyOperands()
    left += 2 * tileBytes
    right += TileScratch.probabilityGroupBytes
    work.step()
  }
  storeAccumulators(outputs)
}

@inline(__always) private var rowPitch: Int64 { 128 }

@inline(__always)
private func multiplyOperands() {
  mla_tile_dot_bf16_0_4_6()
  mla_tile_dot_bf16_1_4_7()
  mla_tile_dot_bf16_2_5_6()
  mla_tile_dot_bf16_3_5_7()
}

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
