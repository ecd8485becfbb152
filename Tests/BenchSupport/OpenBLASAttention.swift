import BenchInstructions
import Foundation

/// What an engine without this library would do on a CPU: fp32 sgemm, causal
/// softmax, sgemm, in blocks of queries that stop at the diagonal; heads are
/// spread over threads. Conversion to fp32 is not counted against it.
public final class OpenBLASAttention: @unchecked Sendable {
  private typealias SGEMM =
    @convention(c) (
      Int32, Int32, Int32, Int32, Int32, Int32, Float, UnsafePointer<Float>?, Int32,
      UnsafePointer<Float>?, Int32, Float, UnsafeMutablePointer<Float>?, Int32
    ) -> Void

  private let sgemm: SGEMM
  private let queryBlock = 256

  /// nil: no OpenBLAS on this machine.
  public init?() {
    guard let handle = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL),
      let sgemm = dlsym(handle, "cblas_sgemm"),
      let setThreads = dlsym(handle, "openblas_set_num_threads")
    else { return nil }
    self.sgemm = unsafeBitCast(sgemm, to: SGEMM.self)
    // Threads of its own would fight with ours.
    unsafeBitCast(setThreads, to: (@convention(c) (Int32) -> Void).self)(1)
  }

  /// - Parameters:
  ///   - workload: of fp32.
  ///   - out: fp32 `[tokens, heads, v_head_dim]`.
  public func run(_ workload: Workload, into out: HostTensor, threads: Int) {
    let heads = workload.dimensions.heads
    onThreads(min(threads, heads)) { [self] thread in
      let scores = UnsafeMutablePointer<Float>.allocate(
        capacity: queryBlock * workload.shape.tokens)
      defer { scores.deallocate() }
      for head in stride(from: thread, to: heads, by: min(threads, heads)) {
        for request in 0..<workload.shape.requests {
          for first in stride(from: 0, to: workload.shape.tokens, by: queryBlock) {
            attend(workload, head, request, first, scores, out)
          }
        }
      }
    }
  }

  private func attend(
    _ workload: Workload, _ head: Int, _ request: Int, _ first: Int,
    _ scores: UnsafeMutablePointer<Float>, _ out: HostTensor
  ) {
    let d = workload.dimensions
    let (rowMajor, plain, transposed): (Int32, Int32, Int32) = (101, 111, 112)
    let rows = Int32(min(queryBlock, workload.shape.tokens - first))
    let keys = Int32(first) + rows
    let (qk, v) = (Int32(d.qk), Int32(d.v))
    let (qkStride, vStride) = (Int32(d.heads * d.qk), Int32(d.heads * d.v))
    let begin = request * workload.shape.tokens
    let q = workload.q.floats + (begin + first) * d.heads * d.qk + head * d.qk
    sgemm(
      rowMajor, plain, transposed, rows, keys, qk, 1, q, qkStride,
      workload.k.floats + begin * d.heads * d.qk + head * d.qk, qkStride, 0, scores, keys)
    bench_causal_softmax(scores, Int64(rows), Int64(keys), Int64(first + 1), Float(d.scale))
    sgemm(
      rowMajor, plain, plain, rows, v, keys, 1, scores, keys,
      workload.v.floats + begin * d.heads * d.v + head * d.v, vStride, 0,
      out.floats + (begin + first) * d.heads * d.v + head * d.v, vStride)
  }
}

extension HostTensor {
  fileprivate var floats: UnsafeMutablePointer<Float> { data.assumingMemoryBound(to: Float.self) }
}
