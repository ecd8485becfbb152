import MLAShims

/// What a call's tensors say of it.
extension mla_call {
  /// - Parameter tensor: [tokens, heads, dim] or [tokens, dim].
  mutating func note(_ tensor: TensorView, on device: Device, requests: Int = 0) {
    dtype = tensor.type.rawValue
    self.device = device.type
    self.requests = Int64(requests)
    tokens = Int64(tensor.shape[0])
    guard tensor.shape.count == 3 else { return }
    heads = Int64(tensor.shape[1])
    qk_head_dim = Int64(tensor.shape[2])
  }
}

extension CallRecord {
  /// Of what works on rows, one by one.
  static func note(rowsOn device: Device) {
    if device.isCUDA { return note(.cuda) }
    note(.cpu(KernelTables.host.table(cappedAt: 0).attention(for: .float32)), threads: HostSettings.threads)
  }
}
