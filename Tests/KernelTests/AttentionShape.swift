import MLATestSupport

/// What one attention call computes, without its numbers.
struct AttentionShape {
  var qkDim: Int
  var vDim: Int
  var numQueries: Int
  /// Keys in memory; those from `keyEnd` on are packed but must not count.
  var numKeys: Int
  var keyBegin: Int
  var keyEnd: Int
  /// nil: no mask.
  var causalOffset: Int?
  var outFormat: ElementFormat
  var wantsLSE = true

  /// Head dimensions of the models, then some that fit no register.
  static let dims: [(qk: Int, v: Int)] = [
    (192, 128), (256, 256), (128, 128), (96, 64), (192, 128), (256, 256), (40, 24), (17, 33), (1, 9),
    (72, 200),
  ]

  /// - Parameter keyBlock: `keyBegin` must be a multiple of it.
  static func random(
    _ random: inout SplitMix64, format: ElementFormat, keyBlock: Int
  ) -> AttentionShape {
    let dims = random.pick(Self.dims)
    let numKeys = random.chance(0.3) ? random.int(1...40) : random.int(1...700)
    let keyEnd = random.chance(0.8) ? numKeys : random.int(1...numKeys)
    let blocks = keyEnd / keyBlock
    let keyBegin = random.chance(0.3) ? keyBlock * random.int(0...blocks) : 0
    let numQueries = random.chance(0.3) ? random.int(1...9) : random.int(1...160)
    let causalOffset: Int? =
      switch random.int(0...3) {
      case 0: nil
      case 1: keyEnd - numQueries
      case 2: 0
      default: random.int(-numQueries - 3...keyEnd + 3)
      }
    return AttentionShape(
      qkDim: dims.qk, vDim: dims.v, numQueries: numQueries, numKeys: numKeys, keyBegin: keyBegin,
      keyEnd: keyEnd, causalOffset: causalOffset,
      outFormat: random.chance(0.7) ? format : random.pick(ElementFormat.inputs),
      wantsLSE: random.chance(0.9))
  }
}
