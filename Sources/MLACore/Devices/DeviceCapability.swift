/// CUDA compute capability; on ROCm 9.4 and 9.5 for gfx942 and gfx950.
public struct DeviceCapability: Hashable, Sendable {
  public var major: Int32
  public var minor: Int32

  public init(_ major: Int32, _ minor: Int32) {
    self.major = major
    self.minor = minor
  }
}
