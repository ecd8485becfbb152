#!/bin/bash
# The vLLM plug-in in a real vLLM CPU engine.
#
#   Tests/vLLM/run.sh [PYTEST-ARGUMENT...]     default: all tests
#   Tests/vLLM/run.sh speed                    the speed tables instead
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
  exec "$python" Tests/vLLM/context_speed.py
fi
exec "$python" -m pytest -v --durations=5 -p no:cacheprovider --rootdir=Tests/vLLM \
  "${@:-Tests/vLLM}"
