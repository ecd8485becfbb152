import MLATestSupport

/// Times kernels and the plain OpenBLAS attention in turns, with the peak of
/// each kernel's instruction taken right before and after each sample.
public struct Comparison {
  public struct Measurement {
    public let kernelCase: KernelCase
    public let instruction: String
    /// Causal TFLOP/s.
    public let best: Double
    public let median: Double
    /// Median over samples of speed / peak of the same moment.
    public let fractionOfPeak: Double
    /// TFLOP/s of the instruction alone, median.
    public let peak: Double
    /// Median speed / OpenBLAS's median speed; nil without OpenBLAS.
    public let ratioToOpenBLAS: Double?
    /// Relative L2 distance of `out` from OpenBLAS's.
    public let difference: Double?
    public let samples: Int
  }

  public let shape: BatchShape
  public let measurements: [Measurement]
  /// Median TFLOP/s; nil without OpenBLAS.
  public let openBLAS: Double?

  /// - Parameters:
  ///   - secondsPerCase: a case that is slower than this is timed three times only.
  public init(
    _ library: MLALibrary, backend name: String? = nil, workload: Workload, cases: [KernelCase],
    rounds: Int, secondsPerCase: Double
  ) throws {
    shape = workload.shape
    let threads = library.numThreads
    var contenders = try cases.map { try Contender(library, name, $0, workload) }
    let blas = OpenBLASAttention()
    let plain = blas.map { _ in workload.float32 }
    let plainOut = HostTensor(
      .float32, rows: workload.tokens, heads: workload.dimensions.heads, dim: workload.dimensions.v)
    var plainTimes: [Double] = []
    let progress = Progress("\(shape)", total: rounds)
    for round in 0...rounds {
      // The first round warms up.
      if round <= 3 || plainTimes.reduce(0, +) < secondsPerCase, let blas, let plain {
        let time = seconds { blas.run(plain, into: plainOut, threads: threads) }
        if round > 0 { plainTimes.append(time) }
      }
      for index in contenders.indices {
        guard round <= 3 || contenders[index].spent < secondsPerCase else { continue }
        try contenders[index].sample(workload, threads: threads, keep: round > 0)
      }
      progress.at(round)
    }
    let plainSpeed = plainTimes.isEmpty ? nil : workload.flops / median(plainTimes) * 1e-12
    let plainValues = plainSpeed == nil ? nil : plainOut.values
    openBLAS = plainSpeed
    measurements = contenders.map { $0.measurement(workload, plainSpeed, plainValues) }
  }
}

/// One kernel's samples.
private struct Contender {
  let kernelCase: KernelCase
  let probe: PeakProbe
  let backend: Backend
  let state: AttentionState
  var times: [Double] = []
  var peaks: [Double] = []

  init(_ library: MLALibrary, _ name: String?, _ kernelCase: KernelCase, _ workload: Workload) throws {
    self.kernelCase = kernelCase
    probe = PeakProbe(kernelCase)
    backend = try Backend(
      library, name: name, dimensions: workload.dimensions, format: kernelCase.format,
      maxISA: kernelCase.isa)
    state = workload.emptyState(kernelCase.format)
    try backend.prepare(queryStarts: workload.shape.queryStarts)
  }

  var spent: Double { times.reduce(0, +) }

  mutating func sample(_ workload: Workload, threads: Int, keep: Bool) throws {
    let before = probe.rate(threads: threads)
    let time = try seconds { try workload.run(backend, into: state) }
    let after = probe.rate(threads: threads)
    guard keep else { return }
    times.append(time)
    peaks.append((before + after) / 2)
  }

  func measurement(
    _ workload: Workload, _ plainSpeed: Double?, _ plainValues: [Double]?
  ) -> Comparison.Measurement {
    let speeds = times.map { workload.flops / $0 * 1e-12 }
    return Comparison.Measurement(
      kernelCase: kernelCase, instruction: probe.instruction, best: speeds.max() ?? 0,
      median: median(speeds),
      fractionOfPeak: median(zip(speeds, peaks).map { $0 / ($1 * 1e-12) }),
      peak: median(peaks) * 1e-12,
      ratioToOpenBLAS: plainSpeed.map { median(speeds) / $0 },
      difference: plainValues.map { relativeL2(state.out.values, $0) }, samples: times.count)
  }
}

func median(_ values: [Double]) -> Double {
  guard !values.isEmpty else { return .nan }
  let sorted = values.sorted()
  let middle = sorted.count / 2
  return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}
