import CMLAPrefill

/// The process's CUDA devices, each opened when it is first asked for.
enum CUDA {
  private static let opened = PerProcess<[CUDADevice]>([])

  /// - Parameters:
  ///   - id: as the driver counts, of those that CUDA_VISIBLE_DEVICES leaves.
  ///   - field: what named the device, for messages.
  static func device(_ id: Int32, field: String) throws(MLAError) -> CUDADevice {
    if let device = opened.withLock({ known(id, $0) }) { return device }
    // Takes a second, and calls foreign code: not under a lock. Of two threads that open the
    // same device, one keeps what it has made.
    let device = try CUDADevice.open(id, field: field)
    let kept = opened.withLock { devices in
      if let other = known(id, devices) { return other }
      devices.append(device)
      return device
    }
    if kept !== device { device.close() }
    return kept
  }

  private static func known(_ id: Int32, _ devices: [CUDADevice]) -> CUDADevice? {
    devices.first { $0.id == id }
  }
}
