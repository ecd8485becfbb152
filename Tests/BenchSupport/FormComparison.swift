import CMLAPrefill
import Foundation
import MLATestSupport

/// Times the two forms of a layer's attention in turns, by the processor time of
/// one thread: what others do on the machine counts little.
public struct FormComparison {
  public struct Measurement {
    public let newTokens: Int
    public let contextLen: Int
    /// Median seconds.
    public let upProjected: Double
    public let absorbed: Double
    /// What MLA_LAYER_ALGORITHM_AUTO took, known by its bits.
    public let autoTakesAbsorbed: Bool
    /// Relative L2 distance of one form's result from the other's.
    public let difference: Double

    /// Above 1: the absorbed form is faster.
    public var gain: Double { upProjected / absorbed }
  }

  private let dimensions: MLADimensions
  private let format: ElementFormat
  private let layers: [Layer]

  /// - Parameter library: runs with one thread from here on.
  public init(
    _ library: MLALibrary, dimensions: MLADimensions, format: ElementFormat, maxISA: Int32
  ) throws {
    try library.setNumThreads(1)
    self.dimensions = dimensions
    self.format = format
    layers = try [
      MLA_LAYER_ALGORITHM_UP_PROJECTED, MLA_LAYER_ALGORITHM_ABSORBED, MLA_LAYER_ALGORITHM_AUTO,
    ].map {
      try Layer(
        library, dimensions: dimensions, format: format, algorithm: Int32($0), maxISA: maxISA)
    }
  }

  public func measure(
    _ requests: [(newTokens: Int, contextLen: Int)], rounds: Int
  ) throws -> Measurement {
    let step = LayerStep(requests, dimensions, format: format)
    let outs = layers.map { _ in
      HostTensor(
        format, rows: requests.map(\.newTokens).reduce(0, +), heads: dimensions.heads,
        dim: dimensions.v)
    }
    try layers[2].forward(step, out: outs[2])
    var times: [[Double]] = [[], []]
    for round in 0...rounds {
      for form in 0..<2 {
        let time = try threadSeconds { try layers[form].forward(step, out: outs[form]) }
        // The first round warms up.
        if round > 0 { times[form].append(time) }
      }
    }
    return Measurement(
      newTokens: requests[0].newTokens, contextLen: requests[0].contextLen,
      upProjected: median(times[0]), absorbed: median(times[1]),
      autoTakesAbsorbed: outs[2].hasBits(of: outs[1]),
      difference: relativeL2(outs[1].values, outs[0].values))
  }
}

extension HostTensor {
  fileprivate func hasBits(of other: HostTensor) -> Bool {
    memcmp(data, other.data, count * format.byteCount) == 0
  }
}

/// Processor time of the calling thread.
func threadSeconds(_ body: () throws -> Void) rethrows -> Double {
  func now() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
  }
  let begin = now()
  try body()
  return now() - begin
}
