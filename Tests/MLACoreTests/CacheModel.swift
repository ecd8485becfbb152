import CMLAPrefill
import MLATestSupport

/// How a token lies in a cache, in float64.
enum CacheModel: CustomStringConvertible {
  /// Everything is multiplied by `scale` when it is read.
  case plain(ElementFormat, scale: Double = 1)
  /// 512 e4m3 latents, four fp32 scales of 128 each, 64 bf16 rotary values.
  case dsMLA

  static let all =
    ElementFormat.allCases.map { CacheModel.plain($0, scale: $0 == .float8E4M3FN ? 0.0625 : 1) }
    + [.dsMLA]

  /// Of the cache's tensor.
  var format: ElementFormat {
    switch self {
    case .plain(let format, _): format
    case .dsMLA: .float8E4M3FN
    }
  }

  /// MLA_CACHE_FORMAT_*.
  var code: Int32 {
    switch self {
    case .plain: Int32(MLA_CACHE_FORMAT_PLAIN)
    case .dsMLA: Int32(MLA_CACHE_FORMAT_FP8_DS_MLA)
    }
  }

  /// As the C structs have it.
  var scale: Float {
    switch self {
    case .plain(.float8E4M3FN, let scale): Float(scale)
    default: 0
    }
  }

  var description: String {
    switch self {
    case .plain(let format, _): format.name
    case .dsMLA: "fp8_ds_mla"
    }
  }

  func width(rank: Int, rope: Int) -> Int {
    switch self {
    case .plain: rank + rope
    case .dsMLA: 656
    }
  }

  /// The bits of a token's elements.
  func bits(latents: [Double], rope: [Double]) -> [UInt32] {
    switch self {
    case .plain(let format, let scale):
      return (latents + rope).map { format.bits($0 / scale) }
    case .dsMLA:
      let groups = stride(from: 0, to: 512, by: 128).map { first in
        QuantizedGroup(Array(latents[first..<first + 128]))
      }
      return groups.flatMap(\.codes)
        + groups.flatMap { bytes($0.scale.bitPattern, count: 4) }
        + rope.flatMap { bytes(ElementFormat.bfloat16.bits($0), count: 2) }
    }
  }

  /// What a reader makes of a token's bits.
  func values(_ bits: [UInt32], rank: Int) -> (latents: [Double], rope: [Double]) {
    switch self {
    case .plain(let format, let scale):
      let values = bits.map { format.value(bits: $0) * scale }
      return (Array(values[..<rank]), Array(values[rank...]))
    case .dsMLA:
      let latents = (0..<512).map { d in
        let scale = Float(bitPattern: word(bits, at: 512 + d / 128 * 4, count: 4))
        return ElementFormat.float8E4M3FN.value(bits: bits[d]) * Double(scale)
      }
      let rope = (0..<64).map { d in
        ElementFormat.bfloat16.value(bits: word(bits, at: 528 + 2 * d, count: 2))
      }
      return (latents, rope)
    }
  }

  private func bytes(_ word: UInt32, count: Int) -> [UInt32] {
    (0..<UInt32(count)).map { (word >> (8 * $0)) & 0xFF }
  }

  private func word(_ bits: [UInt32], at first: Int, count: Int) -> UInt32 {
    (0..<count).reduce(0) { $0 | bits[first + $1] << (8 * UInt32($1)) }
  }
}

extension PoisonedTensor {
  /// The bits of a slot of a cache [blocks, slots, width].
  func slot(_ block: Int, _ slot: Int) -> [UInt32] {
    let first = pointer(row: block, head: slot)
    return (0..<dim).map { format.loadBits(first + $0 * format.byteCount) }
  }

  func setSlot(_ block: Int, _ slot: Int, _ bits: [UInt32]) {
    let first = pointer(row: block, head: slot)
    for (i, bits) in bits.enumerated() { format.storeBits(bits, to: first + i * format.byteCount) }
  }
}
