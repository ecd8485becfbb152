/// The backends that the library brings along, in the order of vLLM's
/// MLAPrefillBackendEnum.
public enum BuiltInBackend: Int, CaseIterable, Sendable {
  case flashAttn, flashInfer, trtllmRagged, tokenspeedMLA, rocmAiterFA, cpu, zenCPU

  /// The registry's name for it.
  public var name: String { identity.name }
  /// What the backend calls itself (vLLM: get_name()).
  public var backendName: String { identity.backendName }
  /// The class that serves the name in vLLM.
  public var classPath: String { identity.classPath }

  private struct Identity {
    let name: String
    let backendName: String
    let classPath: String

    init(_ name: String, callsItself backendName: String? = nil, _ moduleAndClass: String) {
      self.name = name
      self.backendName = backendName ?? name
      self.classPath = "vllm.v1.attention.backends.mla.prefill." + moduleAndClass
    }
  }

  private var identity: Identity {
    switch self {
    case .flashAttn: Identity("FLASH_ATTN", "flash_attn.FlashAttnPrefillBackend")
    case .flashInfer: Identity("FLASHINFER", "flashinfer.FlashInferPrefillBackend")
    case .trtllmRagged: Identity("TRTLLM_RAGGED", "trtllm_ragged.TrtllmRaggedPrefillBackend")
    case .tokenspeedMLA: Identity("TOKENSPEED_MLA", "tokenspeed_mla.TokenspeedMLAPrefillBackend")
    case .rocmAiterFA: Identity("ROCM_AITER_FA", "aiter_flash_attn.AiterFlashAttnPrefillBackend")
    case .cpu:
      Identity("CPU", callsItself: "CPU_SDPA_MLA", "cpu_sdpa.CPUSDPAMLAPrefillBackend")
    case .zenCPU:
      Identity(
        "ZEN_CPU", callsItself: "ZEN_CPU_SDPA_MLA", "zen_cpu_sdpa.ZenCPUSDPAMLAPrefillBackend")
    }
  }
}
