import CMLAPrefill

/// Memory of the library's own on a device.
final class CUDAMemory: @unchecked Sendable {
  let address: UInt
  private let device: CUDADevice

  /// Takes it, and waits until the bytes are there: for whoever makes an object, not for a run.
  init(_ device: CUDADevice, copying bytes: UnsafeRawBufferPointer) throws(MLAError) {
    self.device = device
    address = try device.inContext { () throws(MLAError) in
      try device.driver.besideCaptures { () throws(MLAError) in try Self.copy(bytes, device.driver) }
    }
  }

  private static func copy(_ bytes: UnsafeRawBufferPointer, _ driver: CUDADriver) throws(MLAError)
    -> UInt
  {
    var address: UInt64 = 0
    try driver.check("cuMemAlloc") { driver.allocate(&address, max(1, bytes.count)) }
    guard let start = bytes.baseAddress, !bytes.isEmpty else { return UInt(address) }
    do throws(MLAError) {
      try driver.check("cuMemcpyHtoD") { driver.copyToDevice(address, start, bytes.count) }
      // Which returns when the host's bytes are read: streams that do not wait for the default
      // one could come before they are there.
      try driver.check("cuStreamSynchronize") { driver.synchronizeStream(nil) }
    } catch {
      _ = Arithmetic.callers { driver.free(address) }
      throw error
    }
    return UInt(address)
  }

  deinit {
    // Of a device that is no more, or in a forked child, there is nothing to give back.
    _ = try? device.inContext { () throws(MLAError) in
      _ = Arithmetic.callers { device.driver.free(UInt64(address)) }
    }
  }
}

extension CUDADevice {
  /// Brings bytes of the device's to the host, after what their owner has waited for.
  ///
  /// - Parameter field: what held the address, for messages.
  func copy(_ bytes: Range<UInt>, to host: UnsafeMutableRawPointer, _ field: String)
    throws(MLAError)
  {
    try onStream(nil) { launcher throws(MLAError) in
      try launcher.requireOwnMemory(bytes.lowerBound, field)
      try driver.besideCaptures { () throws(MLAError) in
        try driver.check("cuMemcpyDtoH") {
          driver.copyToHost(host, UInt64(bytes.lowerBound), bytes.count)
        }
      }
    }
  }
}

extension CUDADevice.Launcher {
  /// Runs `body` with memory of the stream's order: it is there for what `body` puts on the
  /// stream, and then gone.
  func withMemory(of bytes: Int, _ body: (UnsafeMutableRawPointer) throws(MLAError) -> Void)
    throws(MLAError)
  {
    let driver = device.driver
    var address: UInt64 = 0
    try driver.check("cuMemAllocAsync") { driver.allocateOnStream(&address, bytes, stream) }
    defer { _ = Arithmetic.callers { driver.freeOnStream(address, stream) } }
    guard let start = UnsafeMutableRawPointer(bitPattern: UInt(address)) else {
      throw .outOfMemory("workspace of a run on a CUDA device", bytes: bytes)
    }
    try body(start)
  }

  /// Writes numbers of 4 bytes.
  func fill(_ start: UInt, count: Int, with word: UInt32) throws(MLAError) {
    guard count > 0 else { return }
    let driver = device.driver
    try driver.check("cuMemsetD32Async") { driver.fillWords(UInt64(start), word, count, stream) }
  }
}
