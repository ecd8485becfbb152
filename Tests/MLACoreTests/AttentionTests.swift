import CMLAPrefill
import MLATestSupport
import XCTest

@testable import MLACore

/// Attention in one call on every table, against float64, in memory whose ends are guarded.
final class AttentionTests: XCTestCase {
  /// Of either form: groups of heads that fill vectors and that do not, masks with which some
  /// tokens see more than others, and some nothing.
  func testGroupsAndMasksAgainstFloat64() throws {
    var random = SplitMix64(seed: 111)
    for isa in KernelCase.isas {
      for format in ElementFormat.inputs {
        for (queries, keys, heads, keyHeads) in [
          (1, 300, 5, 1), (1, 1100, 16, 2), (3, 90, 33, 1), (9, 5, 8, 2), (17, 700, 4, 1),
          (70, 70, 6, 2), (2, 0, 4, 2),
        ] {
          let causal = random.pick([CausalMask.none, .start, .end])
          let call = OneCall(
            format, queries: queries, keys: keys, heads: heads, keyHeads: keyHeads,
            dims: random.pick([(40, 24), (5, 7), (64, 64), (24, 130)]), causal, &random)
          try check(call, isa, "isa \(isa), \(format.name), \(queries) on \(keys), \(causal)")
        }
      }
    }
  }

  private func check(_ call: OneCall, _ isa: Int32, _ message: String) throws {
    let result = try call.run(isa)
    let expected = call.reference
    let bounds: (out: Double, lse: Double) =
      switch call.q.format {
      case .bfloat16: (4e-3, 2e-4)
      case .float16: (1.5e-3, 2e-4)
      default: (2e-5, 2e-4)
      }
    let out = relativeL2(result.out.values, expected.out)
    let lse = maxDifference(result.lse.values, expected.lse)
    XCTAssertTrue(out <= bounds.out, "\(message): out \(out)")
    XCTAssertTrue(lse <= bounds.lse, "\(message): lse \(lse)")
    XCTAssertTrue(result.out.surroundingsAreIntact && result.lse.surroundingsAreIntact, message)
  }
}

/// One request.
private struct OneCall {
  let q: PoisonedTensor
  let k: PoisonedTensor
  let v: PoisonedTensor
  let causal: CausalMask
  let scale = 0.2

  init(
    _ format: ElementFormat, queries: Int, keys: Int, heads: Int, keyHeads: Int,
    dims: (qk: Int, v: Int), _ causal: CausalMask, _ random: inout SplitMix64
  ) {
    func tensor(_ rows: Int, _ heads: Int, _ dim: Int) -> PoisonedTensor {
      let tensor = PoisonedTensor(
        format, rows: rows, heads: heads, dim: dim, headGap: random.int(0...9),
        rowGap: random.pick([0, 5]))
      tensor.fillNormal(&random)
      return tensor
    }
    q = tensor(queries, heads, dims.qk)
    k = tensor(keys, keyHeads, dims.qk)
    v = tensor(keys, keyHeads, dims.v)
    self.causal = causal
  }

  func run(_ isa: Int32) throws -> (out: PoisonedTensor, lse: PoisonedTensor) {
    let out = PoisonedTensor(
      q.format, rows: q.rows, heads: q.heads, dim: v.dim, headGap: 5, rowGap: 3)
    let lse = PoisonedTensor(.float32, rows: q.heads, dim: q.rows, rowGap: 7)
    var (qv, kv, vv) = (view(q, rank: 3), view(k, rank: 3), view(v, rank: 3))
    var (ov, lv) = (view(out, rank: 3), view(lse))
    try withUnsafePointer(to: &qv) { q in
      try withUnsafePointer(to: &kv) { k in
        try withUnsafePointer(to: &vv) { v in
          try withUnsafePointer(to: &ov) { out in
            try withUnsafePointer(to: &lv) { lse in
              var args = mla_attention_args()
              args.struct_size = UInt32(MemoryLayout<mla_attention_args>.size)
              (args.q, args.k, args.v, args.out, args.lse) = (q, k, v, out, lse)
              (args.scale, args.causal, args.max_isa) = (scale, causal.rawValue, isa)
              try Attention.run(&args)
            }
          }
        }
      }
    }
    return (out, lse)
  }

  var reference: (out: [Double], lse: [Double]) {
    let offset: Int? =
      switch causal {
      case .none: nil
      case .start: 0
      case .end: k.rows - q.rows
      }
    var out = [Double](repeating: 0, count: q.rows * q.heads * v.dim)
    var lse: [Double] = []
    for head in 0..<q.heads {
      let keyHead = head / (q.heads / k.heads)
      let one = ReferenceAttention(
        q: q.values(head: head), k: k.values(head: keyHead), v: v.values(head: keyHead),
        qkDim: q.dim, vDim: v.dim, scale: scale, causalOffset: offset)
      for row in 0..<q.rows {
        let first = (row * q.heads + head) * v.dim
        out.replaceSubrange(
          first..<first + v.dim, with: one.out[row * v.dim..<(row + 1) * v.dim])
      }
      lse += one.lse
    }
    return (out, lse)
  }
}
