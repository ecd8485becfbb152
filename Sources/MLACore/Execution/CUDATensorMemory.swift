extension CUDADevice.Launcher {
  /// A tensor's memory, if it has any.
  ///
  /// - Parameter name: the tensor's, for messages.
  func requireOwnMemory(_ view: TensorView, _ name: String) throws(MLAError) {
    if !view.isEmpty { try requireOwnMemory(view.address, "\(name).data") }
  }
}
