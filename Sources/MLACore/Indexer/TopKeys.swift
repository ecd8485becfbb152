/// The keys of the highest scores among all that were offered, in order: of equal ones the
/// earlier, a NaN behind all others. Exact, in memory for twice as many as are wanted.
///
/// A candidate is one number, its score's rank above, and below it, falling, its position: of
/// two candidates the better one is the larger. They lie as they came, by position.
struct TopKeys {
  private let candidates: UnsafeMutablePointer<UInt64>
  private let capacity: Int
  private let wanted: Int
  private(set) var count = 0
  /// Once there were enough: the lowest score among the best. A later key must have a higher one.
  private var least: Float?

  /// - Parameters:
  ///   - memory: `bytes(wanted:atOnce:)`.
  ///   - atOnce: most keys that are offered together.
  init(wanted: Int, atOnce: Int, in memory: UnsafeMutableRawPointer) {
    self.wanted = wanted
    capacity = 2 * wanted + atOnce
    candidates = memory.assumingMemoryBound(to: UInt64.self)
  }

  static func bytes(wanted: Int, atOnce: Int) -> Int { (2 * wanted + atOnce) * 8 }

  /// - Parameters:
  ///   - first: position of the first of these, behind all before.
  ///   - histogram: for `reduce`.
  mutating func offer(
    _ scores: UnsafePointer<Float>, _ number: Int, from first: Int, _ histogram: Histogram
  ) {
    if count + number > capacity { reduce(histogram) }
    guard let least else {
      for i in 0..<number { append(scores[i], first + i) }
      return
    }
    if least.isNaN {
      for i in 0..<number where !scores[i].isNaN { append(scores[i], first + i) }
    } else {
      for i in 0..<number where scores[i] > least { append(scores[i], first + i) }
    }
  }

  private mutating func append(_ score: Float, _ position: Int) {
    candidates[count] = UInt64(Self.rank(score)) << 32 | UInt64(~UInt32(truncatingIfNeeded: position))
    count += 1
  }

  /// Adds the best of later keys, which have ended.
  mutating func take(_ other: TopKeys, _ histogram: Histogram) {
    if count + other.count > capacity { reduce(histogram) }
    (candidates + count).update(from: other.candidates, count: other.count)
    count += other.count
    reduce(histogram)
  }

  /// Leaves the best ones, by position.
  mutating func finish(_ histogram: Histogram) { reduce(histogram) }

  func position(_ i: Int) -> Int32 { Int32(bitPattern: ~UInt32(truncatingIfNeeded: candidates[i])) }
  func score(_ i: Int) -> Float { Self.score(UInt32(truncatingIfNeeded: candidates[i] >> 32)) }
}

// MARK: - Ranks

extension TopKeys {
  /// Rises with the score; 0 for NaN, and the same for 0 and -0.
  private static func rank(_ score: Float) -> UInt32 {
    if score.isNaN { return 0 }
    let bits = (score + 0).bitPattern
    return bits >> 31 == 0 ? bits | 0x8000_0000 : ~bits
  }

  private static func score(_ rank: UInt32) -> Float {
    if rank == 0 { return .nan }
    return Float(bitPattern: rank >> 31 == 0 ? ~rank : rank & 0x7fff_ffff)
  }
}

// MARK: - Selection

extension TopKeys {
  /// Counts of a digit's values.
  typealias Histogram = UnsafeMutablePointer<UInt32>
  private static let digitBits = 11
  static let histogramBytes = 4 << digitBits

  /// Leaves the best ones alone, in their order. Its time does not depend on that.
  private mutating func reduce(_ histogram: Histogram) {
    guard count > wanted else { return }
    let last = lastOfBest(histogram)
    var kept = 0
    var lowest = UInt64.max
    for i in 0..<count {
      let candidate = candidates[i]
      candidates[kept] = candidate
      let isKept = candidate >= last
      kept += isKept ? 1 : 0
      lowest = isKept ? min(lowest, candidate) : lowest
    }
    count = kept
    least = Self.score(UInt32(truncatingIfNeeded: lowest >> 32))
  }

  /// What exactly `wanted` candidates, of which no two are equal, are not below: digit by digit
  /// from the highest.
  private func lastOfBest(_ histogram: Histogram) -> UInt64 {
    var (known, mask, bits, left) = (UInt64(0), UInt64(0), UInt64.bitWidth, wanted)
    while true {
      let width = min(Self.digitBits, bits)
      bits -= width
      let digits = (UInt64(1) << UInt64(width)) - 1
      histogram.update(repeating: 0, count: 1 << width)
      for i in 0..<count where candidates[i] & mask == known {
        histogram[Int((candidates[i] >> UInt64(bits)) & digits)] += 1
      }
      var digit = Int(digits)
      while left > Int(histogram[digit]) {
        left -= Int(histogram[digit])
        digit -= 1
      }
      known |= UInt64(digit) << UInt64(bits)
      mask |= digits << UInt64(bits)
      if left == Int(histogram[digit]) { return known }
    }
  }
}
