/// The tensors that attention is between, of a backend's run or a stateless call.
struct AttentionTensors {
  let q: CallTensor
  let k: CallTensor
  let v: CallTensor
  let out: CallTensor
  let lse: CallTensor?

  func checkTypes(isQuantized: Bool) throws(MLAError) {
    try k.requireType(q.type, "as q")
    try v.requireType(q.type, "as q")
    if !isQuantized { try out.requireAttentionType() }
    try lse?.requireType(.float32, "whatever q's")
  }

  func checkOverlaps(_ workspace: Workspace?) throws(MLAError) {
    try out.requireOutput(apartFrom: q, k, v)
    try lse?.requireOutput(apartFrom: q, k, v, out)
    try workspace?.requireNoOverlap(with: q, k, v, out, lse)
  }
}
