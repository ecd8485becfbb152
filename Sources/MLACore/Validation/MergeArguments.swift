import CMLAPrefill

/// What a merge reads and writes, on the device of its output.
public struct MergeArguments: @unchecked Sendable {
  typealias State = (out: TensorView, lse: TensorView)

  let output: (out: TensorView, lse: TensorView?)
  let prefix: State
  let suffix: State
  /// Tokens from this one on are the suffix's alone.
  let tokensWithContext: Int
  let outputScale: OutputScale?
  let device: Device
  /// The device's; nil: the default one.
  let stream: UnsafeMutableRawPointer?

  /// The caller's, checked against each other.
  public init(_ pointer: UnsafePointer<mla_merge_args>?) throws(MLAError) {
    let raw = try readStruct(pointer, name: "args")
    device = try Device(of: raw.output, name: "output")
    let tensors = try MergeTensors(raw, on: device)
    try device.check(stream: raw.stream)
    stream = raw.stream
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
    output = (tensors.output.view, tensors.outputLSE?.view)
    prefix = (tensors.prefix.out.view, tensors.prefix.lse.view)
    suffix = (tensors.suffix.out.view, tensors.suffix.lse.view)
  }

  /// Merges a part into what has been merged so far.
  init(_ part: State, into merged: State) {
    (prefix, suffix, output) = (part, merged, merged)
    (tokensWithContext, outputScale) = (merged.out.shape[0], nil)
    (device, stream) = (.cpu, nil)
  }
}

private struct MergeTensors {
  let output: CallTensor
  let outputLSE: CallTensor?
  let prefix: (out: CallTensor, lse: CallTensor)
  let suffix: (out: CallTensor, lse: CallTensor)

  init(_ raw: mla_merge_args, on device: Device) throws(MLAError) {
    output = try CallTensor(raw.output, name: "output", on: device, rank: 3)
    outputLSE = try CallTensor(
      raw.output_lse, name: "output_lse", on: device, rank: 2, mayBeNull: true)
    prefix.out = try CallTensor(raw.prefix_output, name: "prefix_output", on: device, rank: 3)
    prefix.lse = try CallTensor(raw.prefix_lse, name: "prefix_lse", on: device, rank: 2)
    suffix.out = try CallTensor(raw.suffix_output, name: "suffix_output", on: device, rank: 3)
    suffix.lse = try CallTensor(raw.suffix_lse, name: "suffix_lse", on: device, rank: 2)
  }

  func checkTypes() throws(MLAError) {
    try prefix.out.requireAttentionType()
    try suffix.out.requireType(prefix.out.type, "as prefix_output")
    try prefix.lse.requireType(.float32, "whatever the outputs'")
    try suffix.lse.requireType(.float32, "whatever the outputs'")
    try outputLSE?.requireType(.float32, "whatever the outputs'")
  }

  func checkShapes() throws(MLAError) {
    let tokens = (output.shape[0], "the tokens of output")
    let heads = (output.shape[1], "the heads of output")
    let dim = (output.shape[2], "the head dimension of output")
    try prefix.out.requireShape(tokens, heads, dim)
    try suffix.out.requireShape(tokens, heads, dim)
    try prefix.lse.requireShape(heads, tokens)
    try suffix.lse.requireShape(heads, tokens)
    try outputLSE?.requireShape(heads, tokens)
  }

  /// An output may be in the place of a side's, element by element.
  func checkOverlaps() throws(MLAError) {
    func others(_ output: CallTensor, _ side: CallTensor) -> CallTensor? {
      output.view == side.view ? nil : side
    }
    try output.requireOutput(
      apartFrom: others(output, prefix.out), others(output, suffix.out), prefix.lse, suffix.lse)
    guard let outputLSE else { return }
    try outputLSE.requireOutput(
      apartFrom: others(outputLSE, prefix.lse), others(outputLSE, suffix.lse), output, prefix.out,
      suffix.out)
  }
}
