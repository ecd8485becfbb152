import CMLAPrefill
import Foundation
import MLATestSupport

/// The keys that each token of a step attends to, drawn from all that it sees: no two tokens
/// share more than chance has it.
public final class Selection: @unchecked Sendable {
  public let topk: Int
  /// [tokens, topk], ascending.
  let indices: UnsafeMutablePointer<Int32>

  public init(newTokens: Int, contextLen: Int, topk: Int) {
    self.topk = topk
    indices = .allocate(capacity: newTokens * topk)
    var random = SplitMix64(seed: 11)
    for token in 0..<newTokens {
      let seen = contextLen + token + 1
      let row = indices + token * topk
      var (count, left) = (0, topk)
      for position in 0..<seen where random.int(0...seen - position - 1) < left {
        row[count] = Int32(position)
        (count, left) = (count + 1, left - 1)
      }
      (row + count).initialize(repeating: -1, count: topk - count)
    }
  }

  deinit { indices.deallocate() }
}

/// Times a layer's attention to selected keys and to all in turns.
public struct SelectionComparison {
  public struct Measurement {
    /// Median seconds.
    public let dense: Double
    public let selected: Double

    /// How many times faster the selected keys are.
    public var gain: Double { dense / selected }
  }

  private let dimensions: MLADimensions
  private let format: ElementFormat
  private let layer: Layer

  public init(
    _ library: MLALibrary, dimensions: MLADimensions, format: ElementFormat, maxISA: Int32
  ) throws {
    self.dimensions = dimensions
    self.format = format
    let weights = HostTensor(
      format, rows: dimensions.heads * (dimensions.nope + dimensions.v), heads: 0,
      dim: dimensions.kvLoraRank)
    var random = SplitMix64(seed: 3)
    weights.fillNormal(&random, deviation: 1 / Double(dimensions.kvLoraRank).squareRoot())
    layer = try Layer(
      library, dimensions: dimensions, weights: weights, algorithm: Int32(MLA_LAYER_ALGORITHM_AUTO),
      maxISA: maxISA)
  }

  public func measure(
    newTokens: Int, contextLen: Int, topk: Int, rounds: Int
  ) throws -> Measurement {
    let step = LayerStep([(newTokens, contextLen)], dimensions, format: format)
    let selection = Selection(newTokens: newTokens, contextLen: contextLen, topk: topk)
    let out = HostTensor(format, rows: newTokens, heads: dimensions.heads, dim: dimensions.v)
    var (dense, selected): ([Double], [Double]) = ([], [])
    // What is first read or written is not there yet.
    try layer.forward(step, out: out, selection: selection)
    for _ in 0..<rounds {
      selected.append(try seconds { try layer.forward(step, out: out, selection: selection) })
      dense.append(try seconds { try layer.forward(step, out: out) })
    }
    return Measurement(dense: median(dense), selected: median(selected))
  }

  private func seconds(_ body: () throws -> Void) rethrows -> Double {
    let clock = ContinuousClock()
    let (s, attoseconds) = try clock.measure(body).components
    return Double(s) + Double(attoseconds) * 1e-18
  }
}
