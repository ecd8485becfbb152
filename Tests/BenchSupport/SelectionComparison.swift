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

/// Times a layer's attention to selected keys, their selection and a layer's attention to all in
/// turns.
public struct SelectionComparison {
  public struct Measurement {
    /// Median seconds: of the layer's two ways, of the indexer for all tokens, and for a rank's
    /// share of them.
    public let dense: Double
    public let selected: Double
    public let indexer: Double
    public let indexerShared: Double
    /// Of the instruction's rate.
    public let indexerFraction: Double

    /// How many times faster the selected keys are: by themselves, with their selection, and
    /// with that shared by ranks.
    public var gain: Double { dense / selected }
    public var gainWithIndexer: Double { dense / (selected + indexer) }
    public var gainWithIndexerShared: Double { dense / (selected + indexerShared) }
  }

  /// That share the indexer's rows, as ranks of a model do that have some of its heads each.
  public static let ranks = 8

  private let library: MLALibrary
  private let kernelCase: KernelCase
  private let dimensions: MLADimensions
  private let layer: Layer

  public init(_ library: MLALibrary, dimensions: MLADimensions, _ kernelCase: KernelCase) throws {
    (self.library, self.kernelCase, self.dimensions) = (library, kernelCase, dimensions)
    layer = try Layer(
      library, dimensions: dimensions, format: kernelCase.format,
      algorithm: Int32(MLA_LAYER_ALGORITHM_AUTO), maxISA: kernelCase.isa)
  }

  public func measure(
    newTokens: Int, contextLen: Int, topk: Int, rounds: Int
  ) throws -> Measurement {
    let format = kernelCase.format
    let step = LayerStep([(newTokens, contextLen)], dimensions, format: format)
    let selection = Selection(newTokens: newTokens, contextLen: contextLen, topk: topk)
    let indexer = IndexStep(
      library, newTokens: newTokens, contextLen: contextLen, topk: topk, kernelCase)
    let out = HostTensor(format, rows: newTokens, heads: dimensions.heads, dim: dimensions.v)
    let probe = PeakProbe(kernelCase)
    var times: [[Double]] = [[], [], [], []]
    var fractions: [Double] = []
    // The last rank's, which see most keys.
    let share = (newTokens - newTokens / Self.ranks)..<newTokens
    // What is first read or written is not there yet.
    try layer.forward(step, out: out, selection: selection)
    try indexer.select()
    for _ in 0..<rounds {
      times[0].append(try seconds { try layer.forward(step, out: out, selection: selection) })
      times[1].append(try seconds { try layer.forward(step, out: out) })
      let before = probe.rate(threads: library.numThreads)
      times[2].append(try seconds { try indexer.select() })
      let after = probe.rate(threads: library.numThreads)
      fractions.append(indexer.operations / times[2].last! / ((before + after) / 2))
      times[3].append(try seconds { try indexer.select(rows: share) })
    }
    return Measurement(
      dense: median(times[1]), selected: median(times[0]), indexer: median(times[2]),
      indexerShared: median(times[3]), indexerFraction: median(fractions))
  }

  private func seconds(_ body: () throws -> Void) rethrows -> Double {
    let clock = ContinuousClock()
    let (s, attoseconds) = try clock.measure(body).components
    return Double(s) + Double(attoseconds) * 1e-18
  }
}
