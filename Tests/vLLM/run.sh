#!/bin/bash
# The vLLM plug-in in a real vLLM CPU engine.
#
#   Tests/vLLM/run.sh [PYTEST-ARGUMENT...]     default: all tests
#   Tests/vLLM/run.sh speed                    the speed tables instead, that of cached context
#                                              also as on a host without AVX-512
#
# MLA_MAX_ISA=avx2 Tests/vLLM/run.sh: as on a host without AVX-512.
set -euo pipefail
cd "$(dirname "$0")/../.."

# What is imported is compiled once, not by each engine.
unset PYTHONDONTWRITEBYTECODE
unset PYTHONPATH PYTHONHOME LD_PRELOAD OMP_NUM_THREADS MLA_PREFILL_VLLM
python=$(Tests/vLLM/environment.sh)/bin/python
. Tests/vLLM/capped.sh

if [ "${1:-}" = speed ]; then
  "$python" Tests/vLLM/speed.py
  "$python" Tests/vLLM/context_speed.py
  "$python" Tests/vLLM/indexer_speed.py
  [ -z "${MLA_MAX_ISA:-}" ] || exit 0
  export MLA_MAX_ISA=avx2
  . Tests/vLLM/capped.sh
  exec "$python" Tests/vLLM/context_speed.py
fi
exec "$python" -m pytest -v --durations=5 -p no:cacheprovider --rootdir=Tests/vLLM \
  "${@:-Tests/vLLM}"
