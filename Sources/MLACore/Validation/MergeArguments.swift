import CMLAPrefill

/// What a merge reads and writes, on one device.
public struct MergeArguments: Sendable {
  let device: Device
  let output: TensorView
  let outputLSE: TensorView?
  let prefixOutput: TensorView
  let prefixLSE: TensorView
  let suffixOutput: TensorView
  let suffixLSE: TensorView
  /// Tokens from this one on are the suffix's alone.
  let tokensWithContext: Int
  let outputScale: OutputScale?

  /// The caller's, checked against each other.
  public init(_ pointer: UnsafePointer<mla_merge_args>?) throws(MLAError) {
    let raw = try readStruct(pointer, name: "args")
    let tensors = try MergeTensors(raw)
    device = tensors.output.device
    try device.check(stream: raw.stream)
    let tokens = tensors.output.shape[0]
    guard raw.prefill_tokens_with_context >= -1, raw.prefill_tokens_with_context <= Int64(tokens)
    else {
      throw .invalid(
        "prefill_tokens_with_context", raw.prefill_tokens_with_context,
        "must be -1 or 0 to the \(tokens) tokens of output")
    }
    tokensWithContext =
      raw.prefill_tokens_with_context == -1 ? tokens : Int(raw.prefill_tokens_with_context)
    outputScale = try OutputScale(raw.output_scale, for: tensors.output)
    try tensors.checkTypes()
    try tensors.checkShapes()
    try tensors.checkOverlaps()
    (output, outputLSE) = (tensors.output.view, tensors.outputLSE?.view)
    (prefixOutput, prefixLSE) = (tensors.prefixOutput.view, tensors.prefixLSE.view)
    (suffixOutput, suffixLSE) = (tensors.suffixOutput.view, tensors.suffixLSE.view)
  }

  /// Merges a part into what has been merged so far.
  init(
    _ part: (out: TensorView, lse: TensorView), into merged: (out: TensorView, lse: TensorView),
    on device: Device
  ) {
    self.device = device
    (output, outputLSE) = (merged.out, merged.lse)
    (prefixOutput, prefixLSE) = (part.out, part.lse)
    (suffixOutput, suffixLSE) = (merged.out, merged.lse)
    tokensWithContext = merged.out.shape[0]
    outputScale = nil
  }
}

private struct MergeTensors {
  let output: CallTensor
  let outputLSE: CallTensor?
  let prefixOutput: CallTensor
  let prefixLSE: CallTensor
  let suffixOutput: CallTensor
  let suffixLSE: CallTensor

  init(_ raw: mla_merge_args) throws(MLAError) {
    output = try CallTensor(raw.output, name: "output", rank: 3)
    outputLSE = try CallTensor(raw.output_lse, name: "output_lse", rank: 2, mayBeNull: true)
    prefixOutput = try CallTensor(raw.prefix_output, name: "prefix_output", rank: 3)
    prefixLSE = try CallTensor(raw.prefix_lse, name: "prefix_lse", rank: 2)
    suffixOutput = try CallTensor(raw.suffix_output, name: "suffix_output", rank: 3)
    suffixLSE = try CallTensor(raw.suffix_lse, name: "suffix_lse", rank: 2)
  }

  func checkTypes() throws(MLAError) {
    try prefixOutput.requireAttentionType()
    try suffixOutput.requireType(prefixOutput.type, "as prefix_output")
    for lse in [prefixLSE, suffixLSE, outputLSE].compactMap({ $0 }) {
      try lse.requireType(.float32, "whatever the outputs'")
    }
  }

  func checkShapes() throws(MLAError) {
    let tokens = (output.shape[0], "the tokens of output")
    let heads = (output.shape[1], "the heads of output")
    let dim = (output.shape[2], "the head dimension of output")
    for tensor in [prefixOutput, suffixOutput] {
      try tensor.requireShape(tokens, heads, dim)
    }
    for lse in [prefixLSE, suffixLSE, outputLSE].compactMap({ $0 }) {
      try lse.requireShape(heads, tokens)
    }
  }

  /// An output may be in the place of a side's, element by element.
  func checkOverlaps() throws(MLAError) {
    func others(_ output: CallTensor, _ side: CallTensor) -> CallTensor? {
      output.view == side.view ? nil : side
    }
    try output.requireOutput(
      apartFrom: others(output, prefixOutput), others(output, suffixOutput), prefixLSE, suffixLSE)
    guard let outputLSE else { return }
    try outputLSE.requireOutput(
      apartFrom: others(outputLSE, prefixLSE), others(outputLSE, suffixLSE), output, prefixOutput,
      suffixOutput)
  }
}
