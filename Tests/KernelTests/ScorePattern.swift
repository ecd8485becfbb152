import Foundation
import MLATestSupport

/// How the scaled scores of a problem are distributed.
enum ScorePattern: CustomStringConvertible {
  /// Independent normal q and k: the scaled scores' standard deviation.
  case normal(Double)
  /// Scores between -80 and 80 in the given order of keys.
  case spread(Order)

  enum Order: CaseIterable { case rising, falling, shuffled, spikeLast, spikeFirst, allHigh, allLow }

  static func random(_ random: inout SplitMix64) -> ScorePattern {
    if random.chance(0.75) { return .normal(0.1 * exp2(random.uniform(0...6.32))) }
    return .spread(random.pick(Order.allCases))
  }

  var description: String {
    switch self {
    case .normal(let deviation): "scores of deviation \(deviation)"
    case .spread(let order): "scores within +-80, \(order)"
    }
  }

  /// By how much the error bounds widen.
  var slack: Double {
    if case .spread = self { return 4 }
    return 1
  }

  /// Fills q and k and returns the scale that makes the scores so.
  func fill(_ q: PoisonedTensor, _ k: PoisonedTensor, _ random: inout SplitMix64) -> Double {
    let dim = Double(q.dim)
    switch self {
    case .normal(let deviation):
      q.fillNormal(&random)
      k.fillNormal(&random)
      return deviation / dim.squareRoot()
    case .spread(let order):
      // All queries look along one direction, in which each key has its place.
      q.fillNormal(&random, deviation: 0.02, mean: 1)
      for row in 0..<k.rows {
        let place = order.place(Double(row) / Double(max(k.rows - 1, 1)), row, k.rows, &random)
        for index in 0..<k.dim { k[row, 0, index] = place + 0.02 * random.normal() }
      }
      return 76 / dim
    }
  }
}

extension ScorePattern.Order {
  /// Where key `row` of `count` lies, from -1 to 1.
  fileprivate func place(
    _ fraction: Double, _ row: Int, _ count: Int, _ random: inout SplitMix64
  ) -> Double {
    switch self {
    case .rising: 2 * fraction - 1
    case .falling: 1 - 2 * fraction
    case .shuffled: random.uniform(-1...1)
    case .spikeLast: row == count - 1 ? 1 : -1
    case .spikeFirst: row == 0 ? 1 : -1
    case .allHigh: 1
    case .allLow: -1
    }
  }
}

