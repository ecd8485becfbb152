# Sourced by what runs torch and vLLM: where MLA_MAX_ISA caps the library it caps them as
# well, so that what a weaker host meets is met here.
case ${MLA_MAX_ISA:-} in
  portable | avx2) export ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 ;;
  avx512) export ATEN_CPU_CAPABILITY=avx512 ONEDNN_MAX_CPU_ISA=AVX512_CORE_VNNI ;;
  avx512_bf16) export ATEN_CPU_CAPABILITY=avx512 ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 ;;
esac
case ${MLA_MAX_ISA:-} in
  portable | avx2 | avx512 | avx512_bf16) export PYTHONPATH=$PWD/Tests/vLLM/capped ;;
esac
