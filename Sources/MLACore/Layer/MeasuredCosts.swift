import MLAKernelABI

extension FormCost {
  /// What work costs with a dtype's kernel.
  ///
  /// The numbers stand here instead of being measured at run time, so that a request
  /// takes the same form, and has the same bits, whatever else the machine is doing.
  /// They are fitted to `mla-bench --forms` on one core of an AMD EPYC of
  /// generation Zen 5, with inputs of bf16. Other machines have other numbers, but
  /// nearly the same ratios, and where the forms meet either will do.
  ///
  /// AMX is computed: 512 products a cycle at 2 GHz, of which projections and
  /// attention reach two thirds; packing by the 90 cycles that a key and value of 320
  /// elements take; a result is loaded, merged and stored as on AVX-512. In fp16 each
  /// product is four, with a value three, and packing makes two operands of one; in
  /// fp32 it is six, and packing makes three.
  static func of(_ kernel: mla_attention_kernel, _ type: ElementType) -> FormCost {
    switch Int(kernel.family) {
    case MLA_FAMILY_AMX where type == .float16:
      FormCost(
        lanes: 32, project: 0.0060, attend: 0.0054, attendLatents: 0.0053, packLatents: 0.28,
        latentResult: 1.6)
    case MLA_FAMILY_AMX where type == .float32:
      FormCost(
        lanes: 32, project: 0.0090, attend: 0.0090, attendLatents: 0.0090, packLatents: 0.42,
        latentResult: 1.6)
    case MLA_FAMILY_AMX:
      FormCost(
        lanes: 32, project: 0.0015, attend: 0.0015, attendLatents: 0.0015, packLatents: 0.14,
        latentResult: 1.6)
    case MLA_FAMILY_AVX512_BF16:
      FormCost(
        lanes: 16, project: 0.0060, attend: 0.0050, attendLatents: 0.0057, packLatents: 0.25,
        latentResult: 1.6)
    case MLA_FAMILY_AVX512:
      FormCost(
        lanes: 16, project: 0.0118, attend: 0.0101, attendLatents: 0.0115, packLatents: 0.48,
        latentResult: 2.4)
    case MLA_FAMILY_AVX2:
      FormCost(
        lanes: 8, project: 0.0207, attend: 0.0186, attendLatents: 0.0196, packLatents: 0.59,
        latentResult: 3.0)
    default:
      FormCost(
        lanes: 4, project: 0.0493, attend: 0.0539, attendLatents: 0.0528, packLatents: 0.59,
        latentResult: 4.0)
    }
  }
}
