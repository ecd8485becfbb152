import BenchInstructions
import CMLAPrefill
import Foundation
import MLATestSupport

/// The instruction whose rate bounds a kernel, and how fast it runs right now:
/// neighbours on the same machine slow a core by factors for seconds at a time,
/// so a speed means little without the peak of the same moment.
public struct PeakProbe: Sendable {
  public let instruction: String
  private let probe: Int32

  public init(_ kernelCase: KernelCase) {
    switch (Int(kernelCase.isa), kernelCase.format) {
    case (MLA_ISA_AMX, _): self.init("tdpbf16ps", BENCH_PROBE_AMX_BF16)
    case (MLA_ISA_AVX512_BF16, .bfloat16): self.init("vdpbf16ps", BENCH_PROBE_AVX512_BF16)
    case (MLA_ISA_AVX512..., _): self.init("vfmadd 512", BENCH_PROBE_AVX512_FMA)
    case (MLA_ISA_AVX2, _): self.init("vfmadd 256", BENCH_PROBE_AVX2_FMA)
    default: self.init("mulps+addps", BENCH_PROBE_SSE_MUL_ADD)
    }
  }

  private init(_ instruction: String, _ probe: Int) {
    self.instruction = instruction
    self.probe = Int32(probe)
  }

  /// FLOP/s of `threads` threads together.
  public func rate(threads: Int, seconds: Double = 0.004) -> Double {
    let rates = UnsafeMutableBufferPointer<Double>.allocate(capacity: threads)
    defer { rates.deallocate() }
    let (probe, base) = (probe, SendablePointer(rates.baseAddress!))
    onThreads(threads) { base.pointer[$0] = bench_probe(probe, Int32(BENCH_CLOCK_WALL), seconds) }
    return rates.reduce(0, +)
  }

  /// FLOP/s of the calling thread per second of its processor time.
  func threadRate(seconds: Double = 0.004) -> Double {
    bench_probe(probe, Int32(BENCH_CLOCK_THREAD), seconds)
  }
}

struct SendablePointer<T>: @unchecked Sendable {
  let pointer: UnsafeMutablePointer<T>
  init(_ pointer: UnsafeMutablePointer<T>) { self.pointer = pointer }
}
