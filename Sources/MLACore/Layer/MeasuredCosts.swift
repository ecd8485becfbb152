import MLAKernelABI

extension FormCost {
  /// What work costs on a kernel's family.
  static func of(_ kernel: mla_attention_kernel) -> FormCost {
    switch Int(kernel.family) {
    case MLA_FAMILY_AMX:
      FormCost(
        lanes: 32, project: 0.001, attend: 0.001, attendLatents: 0.001, packLatents: 0.05)
    case MLA_FAMILY_AVX512_BF16:
      FormCost(
        lanes: 16, project: 0.006, attend: 0.0064, attendLatents: 0.0064, packLatents: 0.21)
    case MLA_FAMILY_AVX512:
      FormCost(
        lanes: 16, project: 0.012, attend: 0.0128, attendLatents: 0.0128, packLatents: 0.21)
    case MLA_FAMILY_AVX2:
      FormCost(lanes: 8, project: 0.024, attend: 0.026, attendLatents: 0.026, packLatents: 0.21)
    default:
      FormCost(lanes: 8, project: 0.1, attend: 0.1, attendLatents: 0.1, packLatents: 0.21)
    }
  }
}
