import CMLAPrefill

/// What mla_get_cpu_info() and mla_cpu_summary() tell.
extension Host {
  public var cpuInfo: mla_cpu_info {
    let kernels = KernelTables.host.table(cappedAt: Int32(MLA_ISA_DEFAULT)).kernels
    var info = mla_cpu_info()
    info.features = features.bits
    info.best_isa = features.bestFamily.rawValue
    info.isa = family.rawValue
    info.bf16_isa = kernels.bf16.family
    info.fp16_isa = kernels.fp16.family
    info.fp32_isa = kernels.fp32.family
    info.num_processors = Int32(clamping: max(ProcessorSet.process.count, 1))
    copy(features.vendor, to: &info.vendor)
    copy(features.model, to: &info.model)
    return info
  }

  /// One printable line.
  public var summary: String {
    let info = cpuInfo
    let cpu = [features.vendor, features.model].filter { !$0.isEmpty }.joined(separator: " ")
    let cap =
      if let ignoredCap { ", MLA_MAX_ISA=\(ignoredCap) ignored" } else {
        family == features.bestFamily ? "" : ", capped by MLA_MAX_ISA"
      }
    return "\(cpu.isEmpty ? "unknown CPU" : cpu), \(info.num_processors) processors; "
      + "kernels bf16 \(name(info.bf16_isa)), fp16 \(name(info.fp16_isa)), "
      + "fp32 \(name(info.fp32_isa)) (host \(features.bestFamily.name)\(cap))"
  }

  private func name(_ family: Int32) -> String { KernelFamily(rawValue: family)?.name ?? "none" }

  /// Cut where the field ends, which always keeps its NUL.
  private func copy<Field: BitwiseCopyable>(_ text: String, to field: inout Field) {
    withUnsafeMutableBytes(of: &field) { bytes in
      bytes.dropLast().copyBytes(from: text.utf8.prefix(bytes.count - 1))
    }
  }
}
