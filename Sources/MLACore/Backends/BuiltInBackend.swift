/// The backends that the library brings along, in the order of vLLM's
/// MLAPrefillBackendEnum.
public enum BuiltInBackend: Int, CaseIterable, Sendable {
  case flashAttn, flashInfer, trtllmRagged, tokenspeedMLA, rocmAiterFA, cpu, zenCPU

  /// The registry's name for it.
  public var name: String { identity.name }
  /// What the backend calls itself (vLLM: get_name()).
  var backendName: String { identity.ownName ?? name }
  /// The class that serves the name in vLLM.
  var classPath: String { "vllm.v1.attention.backends.mla.prefill." + identity.className }

  /// Whether vLLM has it on CUDA.
  var runsOnCUDA: Bool {
    switch self {
    case .flashAttn, .flashInfer, .trtllmRagged, .tokenspeedMLA: true
    case .rocmAiterFA, .cpu, .zenCPU: false
    }
  }

  private var identity: (name: String, ownName: String?, className: String) {
    switch self {
    case .flashAttn: ("FLASH_ATTN", nil, "flash_attn.FlashAttnPrefillBackend")
    case .flashInfer: ("FLASHINFER", nil, "flashinfer.FlashInferPrefillBackend")
    case .trtllmRagged: ("TRTLLM_RAGGED", nil, "trtllm_ragged.TrtllmRaggedPrefillBackend")
    case .tokenspeedMLA: ("TOKENSPEED_MLA", nil, "tokenspeed_mla.TokenspeedMLAPrefillBackend")
    case .rocmAiterFA: ("ROCM_AITER_FA", nil, "aiter_flash_attn.AiterFlashAttnPrefillBackend")
    case .cpu: ("CPU", "CPU_SDPA_MLA", "cpu_sdpa.CPUSDPAMLAPrefillBackend")
    case .zenCPU: ("ZEN_CPU", "ZEN_CPU_SDPA_MLA", "zen_cpu_sdpa.ZenCPUSDPAMLAPrefillBackend")
    }
  }
}
