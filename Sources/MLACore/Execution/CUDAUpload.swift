import MLACUDAKernels

/// Row offsets to memory of the device, in a kernel's parameter: nothing on the host need stay
/// for as long as the stream or a graph has them.
struct CUDAUpload: Sendable {
  private let kernel: CUDADevice.Kernel

  init(_ device: CUDADevice) throws(MLAError) {
    kernel = try device.kernel(
      "mla_upload", threads: Int32(MLA_CUDA_UPLOAD_THREADS), sharedBytes: 0)
  }

  func put(_ offsets: RowOffsets, at address: UInt, _ launcher: CUDADevice.Launcher)
    throws(MLAError)
  {
    let count = offsets.requestCount + 1
    var parameter = mla_cuda_upload()
    for first in stride(from: 0, to: count, by: Int(MLA_CUDA_UPLOAD_NUMBERS)) {
      let some = min(count - first, Int(MLA_CUDA_UPLOAD_NUMBERS))
      parameter.to = UnsafeMutablePointer(bitPattern: address)?.advanced(by: first)
      parameter.count = Int32(some)
      mla_cuda_upload_numbers(&parameter).update(from: offsets.pointer + first, count: some)
      try launcher.launch(kernel, grid: (1, 1), &parameter)
    }
  }
}
