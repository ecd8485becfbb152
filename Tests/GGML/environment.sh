#!/bin/bash
# The llama.cpp of the tests and benchmarks with ggml: prints where its source is, with a build in it.
#
# It lies in .build-ggml, or GGML_ENVIRONMENT (600 MB): the source that the distribution of
# llama-cpp-python on PyPI carries, built once, which takes fifteen minutes of two cores. With
# GGML, the folder of a llama.cpp that is built already, that one is used, and with GGML_BUILD another
# build of it than the one in `build`. Status 3: there is none to be had.
set -euo pipefail
cd "$(dirname "$0")/../.."

if [ -n "${GGML:-}" ]; then
  realpath "$GGML"
  exit
fi
environment=${GGML_ENVIRONMENT:-$PWD/.build-ggml}
version=0.3.36
source=$environment/llama_cpp_python-$version/vendor/llama.cpp
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_QUIET=1
unset PYTHONPATH PYTHONHOME LD_PRELOAD

if [ ! -e "$environment/unpacked-$version" ]; then
  mkdir -p "$environment"
  "${PYTHON:-python3}" -m venv "$environment/pip"
  "$environment/pip/bin/pip" download --no-deps --no-binary :all: -d "$environment" \
    llama-cpp-python==$version > "$environment/pip.log" 2>&1 || {
    tail -5 "$environment/pip.log" >&2
    echo "pip cannot fetch llama-cpp-python: without it nothing can be tested with llama.cpp" >&2
    exit 3
  }
  tar -xzf "$environment/llama_cpp_python-$version.tar.gz" -C "$environment"
  touch "$environment/unpacked-$version"
fi
targets="test-backend-ops llama-bench llama-server"
# Built for this CPU: elsewhere it is another one.
built="$(sed -n 's/^flags[^:]*: //p;T;q' /proc/cpuinfo | sha256sum | cut -c1-16) $targets"
if [ "$(cat "$source/build/complete" 2> /dev/null)" != "$built" ]; then
  rm -rf "$source/build"
  {
    cmake -S "$source" -B "$source/build" -DCMAKE_BUILD_TYPE=Release -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=ON \
      -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF &&
      cmake --build "$source/build" --target $targets -j "$(nproc)"
  } > "$environment/build.log" 2>&1 || {
    tail -5 "$environment/build.log" >&2
    echo "llama.cpp cannot be built, see $environment/build.log" >&2
    exit 1
  }
  echo "$built" > "$source/build/complete"
fi
echo "$source"
