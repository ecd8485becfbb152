import MLAKernelABI
import MLATestSupport
import XCTest

/// One call of the AMX attention kernel on one head of one request.
struct AttentionCase {
  /// Of q, k and v.
  var input = ElementFormat.bfloat16
  var qkDim = 192
  var vDim = 128
  var queries = 1
  var keys = 1
  var keyRange: Range<Int>?
  /// nil: no mask.
  var causalOffset: Int?
  /// Of the scaled scores.
  var deviation = 1.0
  var scale: Double?
  /// Of the output; nil: the inputs'.
  var format: ElementFormat?
  /// Of an fp8 output.
  var multiplier: Float = 1
  var wantsLSE = true
  var seed: UInt64 = 1

  var range: Range<Int> { keyRange ?? 0..<keys }
  var usedFormat: ElementFormat { format ?? input }
  var usedScale: Double { scale ?? deviation / Double(qkDim).squareRoot() }
}

struct AttentionTensors {
  let q: PoisonedTensor
  let k: PoisonedTensor
  let v: PoisonedTensor

  /// Rows lie apart, with NaN between them and pages nobody may touch at the end.
  init(_ attention: AttentionCase) {
    var random = SplitMix64(seed: attention.seed)
    q = PoisonedTensor(attention.input, rows: attention.queries, dim: attention.qkDim, rowGap: 3)
    k = PoisonedTensor(attention.input, rows: attention.keys, dim: attention.qkDim, rowGap: 1)
    v = PoisonedTensor(attention.input, rows: attention.keys, dim: attention.vDim, rowGap: 5)
    q.fillNormal(&random)
    k.fillNormal(&random)
    v.fillNormal(&random)
  }
}

struct AttentionResult {
  let out: PoisonedTensor
  let lse: [Float]
}

/// A kernel behind its table entry, with tiles configured around each call.
struct AMXKernel {
  let entry: mla_attention_kernel

  init(_ input: ElementFormat = .bfloat16) {
    entry = KernelCase(isa: Int32(MLA_FAMILY_AMX), format: input).attention(of: amxTable)
  }

  init(entry: mla_attention_kernel) { self.entry = entry }

  /// Packs the keys and attends tile by tile of `tile` queries, each call of the
  /// kernel within one of `around`.
  func run(
    _ attention: AttentionCase, _ tensors: AttentionTensors, tile: Int? = nil,
    around: (() -> Void) -> Void = { $0() }
  ) -> AttentionResult {
    let dims = mla_kernel_dims(
      qk_head_dim: Int64(attention.qkDim), v_head_dim: Int64(attention.vDim))
    let out = PoisonedTensor(attention.usedFormat, rows: attention.queries, dim: attention.vDim, rowGap: 7)
    var lse = [Float](repeating: .nan, count: attention.queries)
    let packed = pack(attention, tensors, dims)
    let scratch = dirtyMemory(Int(entry.scratch_bytes(dims)))
    defer {
      packed.deallocate()
      scratch.deallocate()
    }
    entry.enter?()
    var first = 0
    while first < attention.queries {
      let count = min(tile ?? Int(entry.query_tile), attention.queries - first)
      lse.withUnsafeMutableBufferPointer { lse in
        var args = mla_attend_args()
        args.dims = dims
        args.q = UnsafeRawPointer(tensors.q.pointer(row: first))
        args.q_stride = Int64(tensors.q.rowStride)
        args.num_queries = Int64(count)
        args.packed = UnsafeRawPointer(packed)
        args.key_begin = Int64(attention.range.lowerBound)
        args.key_end = Int64(attention.range.upperBound)
        args.causal_offset = attention.causalOffset.map { Int64($0 + first) } ?? Int64.max / 2
        args.scale = Float(attention.usedScale)
        args.format = attention.input.rawValue
        args.out_format = attention.usedFormat.rawValue
        args.out_multiplier = attention.multiplier
        args.out = out.pointer(row: first)
        args.out_stride = Int64(out.rowStride)
        args.lse = attention.wantsLSE ? lse.baseAddress! + first : nil
        args.scratch = scratch
        around { entry.attend(&args) }
      }
      first += count
    }
    entry.leave?()
    return AttentionResult(out: out, lse: lse)
  }

  private func pack(_ attention: AttentionCase, _ tensors: AttentionTensors, _ dims: mla_kernel_dims)
    -> UnsafeMutableRawPointer
  {
    let block = Int(entry.key_block)
    let bytes = Int(entry.packed_block_bytes(dims))
    let blocks = (attention.keys + block - 1) / block
    let packed = dirtyMemory(max(blocks, 1) * bytes)
    for index in 0..<blocks {
      var args = mla_pack_args()
      args.dims = dims
      args.k = UnsafeRawPointer(tensors.k.pointer(row: index * block))
      args.v = UnsafeRawPointer(tensors.v.pointer(row: index * block))
      args.k_stride = Int64(tensors.k.rowStride)
      args.v_stride = Int64(tensors.v.rowStride)
      args.num_keys = Int64(min(block, attention.keys - index * block))
      args.format = attention.input.rawValue
      args.packed = packed + index * bytes
      entry.pack(&args)
    }
    return packed
  }

  /// What a kernel did not write itself must not matter: all of it is NaN.
  private func dirtyMemory(_ bytes: Int) -> UnsafeMutableRawPointer {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 64)
    memory.initializeMemory(as: UInt8.self, repeating: 0xFF, count: bytes)
    return memory
  }
}
