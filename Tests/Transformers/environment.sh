#!/bin/bash
# The environment of the tests and benchmarks with transformers: prints where it is.
#
# It lies in .build-transformers, or TRANSFORMERS_ENVIRONMENT (900 MB), and is made once; the
# package is installed into it anew each time.
set -euo pipefail
cd "$(dirname "$0")/../.."

environment=${TRANSFORMERS_ENVIRONMENT:-$PWD/.build-transformers}
python=${PYTHON:-python3}
pip=$environment/bin/pip
packages="transformers==5.24.0 torchao==0.18.0 pytest"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_QUIET=1 PIP_NO_COMPILE=1
unset PYTHONPATH PYTHONHOME LD_PRELOAD

fetch() {
  "$pip" install "$@" >&2 && return
  echo "pip cannot fetch $*: without it nothing can be tested with transformers" >&2
  exit 1
}

if [ "$(cat "$environment/installed" 2> /dev/null)" != "$packages" ]; then
  "$python" -m venv --clear "$environment"
  # The CPU's own build is a tenth of the size, but not every index has it.
  "$pip" install torch==2.13.0+cpu 2> "$environment/pip.log" || fetch torch==2.13.0
  # shellcheck disable=SC2086
  fetch $packages
  echo "$packages" > "$environment/installed"
fi
"$pip" install --no-deps --force-reinstall ./python >&2
echo "$environment"
