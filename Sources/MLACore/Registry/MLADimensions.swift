/// Head dimensions of an MLA model (vLLM: MLADimensions).
public struct MLADimensions: Hashable, Sendable, CustomStringConvertible {
  public var qkNopeHeadDim: Int32
  public var qkRopeHeadDim: Int32
  public var vHeadDim: Int32

  public init(_ qkNopeHeadDim: Int32, _ qkRopeHeadDim: Int32, _ vHeadDim: Int32) {
    self.qkNopeHeadDim = qkNopeHeadDim
    self.qkRopeHeadDim = qkRopeHeadDim
    self.vHeadDim = vHeadDim
  }

  public var description: String {
    "(qk_nope_head_dim=\(qkNopeHeadDim), qk_rope_head_dim=\(qkRopeHeadDim), v_head_dim=\(vHeadDim))"
  }

  /// DeepSeek V2, V3, R1, Kimi K2.
  static let deepSeek = MLADimensions(128, 64, 128)
  static let glm5 = MLADimensions(192, 64, 256)
  static let mistralSmall4 = MLADimensions(64, 64, 128)
  /// Without rotary part.
  static let glm5Next = MLADimensions(256, 0, 256)
}
