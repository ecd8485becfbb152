import CMLAPrefill

/// A tensor of the caller's that the host is to read, wherever it is: on a CUDA device, a copy.
struct HostTensor {
  /// NULL where the caller has none.
  let pointer: UnsafePointer<mla_tensor>?
  private let copy: Copy?

  private final class Copy {
    let tensor: UnsafeMutablePointer<mla_tensor>
    let memory: ScratchBuffer

    init(_ tensor: mla_tensor, _ memory: consuming ScratchBuffer) {
      self.tensor = .allocate(capacity: 1)
      self.tensor.initialize(to: tensor)
      self.tensor.pointee.data = memory.base
      self.memory = memory
      self.tensor.pointee.device_type = Device.cpu.type
      self.tensor.pointee.device_id = Device.cpu.id
    }

    deinit { tensor.deallocate() }
  }

  /// - Parameter name: the field that held the pointer, for messages.
  init(_ pointer: UnsafePointer<mla_tensor>?, name: String, on device: Device) throws(MLAError) {
    guard device.isCUDA, let pointer else {
      (self.pointer, copy) = (pointer, nil)
      return
    }
    let raw = try readStruct(pointer, name: name)
    let tensor = try CallTensor(
      pointer, name: name, on: device, rank: 2, or: 1, mayBeScales: true)
    let memory = try ScratchArena.take(bytes: max(1, tensor.bytes.count), for: "a copy of \(name)")
    if !tensor.bytes.isEmpty {
      try CUDA.device(device.id, field: "config.device_id")
        .copy(tensor.bytes, to: memory.base, "\(name).data")
    }
    let copy = Copy(raw, memory)
    (self.pointer, self.copy) = (UnsafePointer(copy.tensor), copy)
  }
}
