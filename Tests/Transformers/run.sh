#!/bin/bash
# Models of transformers on the library's kernels.
#
#   Tests/Transformers/run.sh [PYTEST-ARGUMENT...]     default: all tests
#   Tests/Transformers/run.sh speed                    the speed table instead
set -euo pipefail
cd "$(dirname "$0")/../.."

# What is imported is compiled once.
unset PYTHONDONTWRITEBYTECODE
unset PYTHONPATH PYTHONHOME LD_PRELOAD OMP_NUM_THREADS
# Nothing is to be fetched.
export HF_HUB_OFFLINE=1
python=$(Tests/Transformers/environment.sh)/bin/python

if [ "${1:-}" = speed ]; then
  exec "$python" Tests/Transformers/speed.py
fi
# Tiny models have no work for two threads, which would wait for each other.
export OMP_NUM_THREADS=1
exec "$python" -m pytest -v --durations=5 -p no:cacheprovider --rootdir=Tests/Transformers \
  "${@:-Tests/Transformers}"
