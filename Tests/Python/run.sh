#!/bin/bash
# The Python package as its users get it: a wheel, installed into environments
# that know neither Swift nor this checkout, and the tests of this folder in them.
#
#   Tests/Python/run.sh [PYTEST-ARGUMENT...]
#
# Environments lie in .build-python: `numpy` is made anew each time, `torch`
# (200 MB to fetch) once.
set -euo pipefail
cd "$(dirname "$0")/../.."

out=$PWD/.build-python
python=${PYTHON:-python3}
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_QUIET=1
unset PYTHONPATH PYTHONHOME

# What Debian's python3 leaves to a package of its own, a virtual environment has.
[ -x "$out/build/bin/pip" ] || "$python" -m venv "$out/build"
rm -rf "$out/wheels"
"$out/build/bin/pip" wheel --no-deps -w "$out/wheels" ./python

tools=(pytest hypothesis numpy ml_dtypes safetensors)

"$python" -m venv --clear "$out/numpy"
"$out/numpy/bin/pip" install "$out"/wheels/*.whl "${tools[@]}"

if [ ! -e "$out/torch/complete" ]; then
  "$python" -m venv --clear "$out/torch"
  # The CPU's own build is a tenth of the size, but not every index has it.
  "$out/torch/bin/pip" install torch==2.13.0+cpu 2> "$out/torch/pip.log" ||
    "$out/torch/bin/pip" install torch==2.13.0
  touch "$out/torch/complete"
fi
"$out/torch/bin/pip" install "${tools[@]}"
"$out/torch/bin/pip" install --no-deps --force-reinstall "$out"/wheels/*.whl

status=0
# Where neither torch nor vLLM is, as at most of the package's users.
"$out/build/bin/pip" install mypy
(cd python && "$out/build/bin/mypy" --cache-dir "$out/mypy") || status=1

for environment in numpy torch; do
  echo "--- $environment"
  without=()
  [ $environment = torch ] ||
    without=(--ignore-glob='Tests/Python/test_*torch.py' --ignore=Tests/Python/test_vllm_registry.py)
  # No Swift, and no mla_prefill but the wheel's.
  env PATH="$out/$environment/bin:/usr/bin:/bin" \
    "$out/$environment/bin/python" -m pytest -v -s -p no:cacheprovider --rootdir=Tests/Python \
    Tests/Python "${without[@]}" "$@" || status=1
done
[ $# -gt 0 ] || "$out/numpy/bin/python" Tests/Gates/readme.py --extension || status=1
exit $status
