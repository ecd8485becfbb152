import CMLAPrefill

/// Where the tensors of a call lie. Memory of another device than the CPU is known by its
/// addresses alone: nothing here or above touches it but a registered backend.
struct Device: Equatable, Sendable {
  /// MLA_DEVICE_CPU, _CUDA or _ROCM.
  let type: Int32
  let id: Int32

  static var cpu: Device { Device(type: Int32(MLA_DEVICE_CPU), id: 0) }

  var isCUDA: Bool { type == Int32(MLA_DEVICE_CUDA) }

  private init(type: Int32, id: Int32) { (self.type, self.id) = (type, id) }

  /// As a configuration names it.
  init(type: Int32, id: Int32, structName: String) throws(MLAError) {
    // What callers of before there was a field say.
    let type = type == 0 ? Int32(MLA_DEVICE_CPU) : type
    switch Int(type) {
    case MLA_DEVICE_CPU:
      guard id == 0 else { throw .invalid("\(structName).device_id", id, "must be 0 on the CPU") }
    case MLA_DEVICE_CUDA, MLA_DEVICE_ROCM:
      try checkRange("\(structName).device_id", id, 0...Int32.max)
    default:
      throw .invalid(
        "\(structName).device_type", type,
        "must be 0 or one of MLA_DEVICE_CPU, MLA_DEVICE_CUDA and MLA_DEVICE_ROCM")
    }
    (self.type, self.id) = (type, id)
  }

  /// Of a tensor whose call has no other word for it: the CPU or a CUDA device.
  init(of pointer: UnsafePointer<mla_tensor>?, name: String) throws(MLAError) {
    let tensor = try readStruct(pointer, name: name)
    self = Device(type: tensor.device_type, id: tensor.device_id)
    if isCUDA {
      try checkRange("\(name).device_id", id, 0...Int32.max)
    } else {
      try Device.cpu.require(tensor, name: name)
    }
  }

  /// For what runs nowhere else.
  func requireCPU(_ what: String) throws(MLAError) {
    guard self == .cpu else {
      throw MLAError(
        MLA_ERROR_UNSUPPORTED_HARDWARE,
        "config.device_type = \(type): \(what) do not run on \(Self.name(type)) devices")
    }
  }

  /// - Parameter name: the tensor's, for messages.
  func require(_ tensor: mla_tensor, name: String) throws(MLAError) {
    guard tensor.device_type == type, tensor.device_id == id else {
      throw refusal(of: tensor, name)
    }
  }

  @inline(never)
  private func refusal(of tensor: mla_tensor, _ name: String) -> MLAError {
    if tensor.device_type == type {
      return .invalid(
        "\(name).device_id", tensor.device_id,
        self == .cpu ? "must be 0 on the CPU" : "must be \(id), the device of this call")
    }
    let given = "\(name).device_type = \(tensor.device_type): "
    guard self == .cpu else {
      return MLAError(
        MLA_ERROR_INVALID_ARGUMENT,
        given + "must be \(type) (\(Self.name(type))), the device of this call")
    }
    return MLAError(
      MLA_ERROR_UNSUPPORTED_HARDWARE,
      given + "this call runs on MLA_DEVICE_CPU (1), not on \(Self.name(tensor.device_type)) tensors"
    )
  }

  /// A call's stream, which is of the device's kind.
  func check(stream: UnsafeMutableRawPointer?) throws(MLAError) {
    guard self == .cpu, let stream else { return }
    throw .invalid("stream", "\(stream)", "must be NULL for CPU tensors")
  }

  /// A copy that the caller says it has there of offsets on the host.
  func check(copy: UnsafePointer<Int32>?, _ field: @autoclosure () -> String) throws(MLAError) {
    guard let copy else { return }
    guard self != .cpu else {
      throw .invalid(
        field(), "0x" + String(UInt(bitPattern: copy), radix: 16),
        "must be NULL where the backend's config has the CPU")
    }
    try Self.requireAligned(copy, field())
  }

  /// Of integers that the caller says it has on a device.
  static func requireAligned<Element>(
    _ pointer: UnsafePointer<Element>?, _ field: @autoclosure () -> String
  ) throws(MLAError) {
    let (address, alignment) = (UInt(bitPattern: pointer), MemoryLayout<Element>.alignment)
    guard address % UInt(alignment) == 0 else {
      throw .invalid(
        field(), "0x" + String(address, radix: 16), "must be aligned to \(alignment) bytes")
    }
  }

  private static func name(_ type: Int32) -> String {
    switch Int(type) {
    case MLA_DEVICE_CPU: "CPU"
    case MLA_DEVICE_CUDA: "CUDA"
    case MLA_DEVICE_CUDA_HOST: "CUDA host"
    case MLA_DEVICE_ROCM: "ROCm"
    case MLA_DEVICE_ROCM_HOST: "ROCm host"
    default: "such"
    }
  }
}
