import CMLAPrefill

/// Where tensors live, and so where a call on them is carried out. Only here is it known
/// which devices there are kernels for.
enum Device: Sendable {
  case cpu

  /// - Parameter name: the tensor's, for messages.
  init(_ raw: mla_tensor, name: String) throws(MLAError) {
    guard raw.device_type == MLA_DEVICE_CPU else {
      throw MLAError(
        MLA_ERROR_UNSUPPORTED_HARDWARE,
        "\(name).device_type = \(raw.device_type): no provider is registered for "
          + "\(Self.name(raw.device_type)) tensors; this library runs MLA_DEVICE_CPU (1)")
    }
    guard raw.device_id == 0 else {
      throw .invalid("\(name).device_id", raw.device_id, "must be 0 on the CPU")
    }
    self = .cpu
  }

  /// As an mla_tensor has it.
  var raw: (type: Int32, id: Int32) {
    switch self {
    case .cpu: (Int32(MLA_DEVICE_CPU), 0)
    }
  }

  private static func name(_ type: Int32) -> String {
    switch Int(type) {
    case MLA_DEVICE_CUDA: "CUDA"
    case MLA_DEVICE_CUDA_HOST: "CUDA host"
    case MLA_DEVICE_ROCM: "ROCm"
    case MLA_DEVICE_ROCM_HOST: "ROCm host"
    default: "such"
    }
  }

  /// A call's stream, which is of the device's kind.
  func check(stream: UnsafeMutableRawPointer?) throws(MLAError) {
    switch self {
    case .cpu:
      if let stream { throw .invalid("stream", "\(stream)", "must be NULL for CPU tensors") }
    }
  }
}
