#!/bin/bash
# The Python package as its users get it: a wheel, installed into environments
# that know neither Swift nor this checkout, and the tests of this folder in them.
#
#   Tests/Python/run.sh                       with torch what is about it, without all else
#   Tests/Python/run.sh torch                 all of them with torch
#   Tests/Python/run.sh PYTEST-ARGUMENT...    with it and without
#
# Environments lie in .build-python. They are made once (torch is 200 MB to fetch), the
# wheel is installed anew each time.
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

tools="pytest hypothesis numpy ml_dtypes safetensors"

# environment NAME COMMAND: one in which COMMAND and these tools were installed.
environment() {
  local pip=$out/$1/bin/pip installed=$out/$1/installed
  if [ "$(cat "$installed" 2> /dev/null)" != "$tools" ]; then
    "$python" -m venv --clear "$out/$1"
    $2 "$pip"
    # shellcheck disable=SC2086
    "$pip" install $tools
    echo "$tools" > "$installed"
  fi
  "$pip" install --no-deps --force-reinstall "$out"/wheels/*.whl
}

# The CPU's own build is a tenth of the size, but not every index has it.
torch() { "$1" install torch==2.13.0+cpu 2> "$out/torch/pip.log" || "$1" install torch==2.13.0; }

# test_in NAME PYTEST-ARGUMENT...: no Swift, and no mla_prefill but the wheel's.
test_in() {
  echo "--- $1"
  env PATH="$out/$1/bin:/usr/bin:/bin" "$out/$1/bin/python" -m pytest -v -s -p no:cacheprovider \
    --rootdir=Tests/Python "${@:2}"
}

about_torch=(Tests/Python/test_*torch.py Tests/Python/test_vllm_registry.py)
environment numpy true
environment torch torch
status=0
python3 Tests/Gates/wheel_files.py "$out"/wheels/*.whl || status=1
# Where neither torch nor vLLM is, as at most of the package's users.
"$out/build/bin/pip" install mypy==2.4.1
(cd python && "$out/build/bin/mypy" --cache-dir "$out/mypy") || status=1

case ${1:-} in
  "")
    test_in numpy Tests/Python "${about_torch[@]/#/--ignore=}" || status=1
    test_in torch "${about_torch[@]}" Tests/Python/test_import.py || status=1
    "$out/numpy/bin/python" Tests/Gates/readme.py --extension || status=1
    ;;
  torch) test_in torch Tests/Python || status=1 ;;
  *)
    test_in numpy Tests/Python "${about_torch[@]/#/--ignore=}" "$@" || status=1
    test_in torch Tests/Python "$@" || status=1
    ;;
esac
exit $status
