import MLAKernelABI

/// What a stateless call has of a model: what its plan is made for, beside its requests.
struct AttentionShape: Equatable, Sendable {
  let type: ElementType
  /// Of queries.
  let numHeads: Int
  /// Of keys and values, each for `headsPerKeyHead` neighbours of the former.
  let numKeyHeads: Int
  let qkHeadDim: Int
  let vHeadDim: Int
  /// MLA_ISA_*: the strongest kernels allowed.
  let maxISA: Int32

  var headsPerKeyHead: Int { numHeads / numKeyHeads }

  var kernelDims: mla_kernel_dims {
    mla_kernel_dims(qk_head_dim: Int64(qkHeadDim), v_head_dim: Int64(vHeadDim))
  }
}

extension AttentionArguments {
  var shape: AttentionShape {
    let dim = q.shape.count - 1
    return AttentionShape(
      type: q.type, numHeads: q.shape[1], numKeyHeads: k.shape[1],
      qkHeadDim: q.shape[dim], vHeadDim: v.shape[dim], maxISA: maxISA)
  }
}
