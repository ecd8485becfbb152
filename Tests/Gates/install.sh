#!/bin/bash
# The installed library as its users find it: the examples built by way of
# pkg-config and of CMake, and run. Run in the project's folder.
#
#   install.sh           from a prefix that was moved after it was installed
#   install.sh PREFIX    from there
set -eu
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ $# -gt 0 ]; then
  prefix=$1
else
  # Packagers install below DESTDIR, and the tree must not remember where.
  make -s install DESTDIR="$work/package" PREFIX=/opt/mla
  mv "$work/package/opt/mla" "$work/moved prefix"
  prefix="$work/moved prefix"
  for file in lib/libmlaprefill.so lib/libmlaprefill.so.1 lib/pkgconfig/mla_prefill.pc \
    lib/cmake/mla_prefill/mla_prefillConfig.cmake share/doc/mla_prefill/LICENSE share/doc/mla_prefill/swift-runtime.txt; do
    [ -e "$prefix/$file" ] || { echo "not ok installed $file"; exit 1; }
  done
  echo "ok installed with DESTDIR, then moved"
fi

export LD_LIBRARY_PATH="$prefix/lib"
failed=0

# example NAME COMMAND...
example() {
  local name=$1
  shift
  if "$@" >"$work/log" 2>&1; then
    echo "ok $name"
  else
    echo "not ok $name"
    cat "$work/log"
    failed=1
  fi
}

# flags OPTION [PACKAGE]...: of the library, and what else a program uses.
flags() { PKG_CONFIG_PATH="$prefix/lib/pkgconfig" pkg-config "$1" mla_prefill "${@:2}"; }
eval "cflags=($(flags --cflags))"
eval "libs=($(flags --libs))"
# shellcheck disable=SC2154
example "pkg-config: examples/c builds" \
  gcc -std=c99 "${cflags[@]}" examples/c/prefill.c examples/c/safetensors.c "${libs[@]}" -lm -o "$work/prefill"
example "pkg-config: examples/c runs" "$work/prefill" Tests/Data/dsv2_chunked.safetensors
# shellcheck disable=SC2154
example "pkg-config: examples/c/attention builds" \
  gcc -std=c99 "${cflags[@]}" examples/c/attention.c "${libs[@]}" -lm -o "$work/attention_c"
example "pkg-config: examples/c/attention runs" "$work/attention_c"
eval "openblas=($(flags --libs openblas) $(flags --cflags openblas))"
# shellcheck disable=SC2154
example "pkg-config: examples/c/openblas_prefill builds" \
  gcc -std=c99 examples/c/openblas_prefill.c examples/c/openblas_backend.c examples/c/safetensors.c \
  "${openblas[@]}" -lm -pthread -o "$work/openblas_prefill"
example "pkg-config: examples/c/openblas_prefill runs" "$work/openblas_prefill" Tests/Data/dsv2_chunked.safetensors
for program in attention engine_loop custom_backend sparse_step engine/engine; do
  name=$(basename $program)
  # shellcheck disable=SC2154
  example "pkg-config: $name builds" \
    g++ -std=c++17 "${cflags[@]}" examples/cpp/$program.cpp "${libs[@]}" -o "$work/$name"
  example "pkg-config: $name runs" "$work/$name"
done

example "CMake: configures" cmake -S examples -B "$work/cmake" -DCMAKE_PREFIX_PATH="$prefix"
example "CMake: builds" cmake --build "$work/cmake"
for program in prefill openblas_prefill; do
  example "CMake: $program runs" "$work/cmake/$program" "$root/Tests/Data/dsv2_chunked.safetensors"
done
for program in attention_c attention engine_loop custom_backend sparse_step engine; do
  example "CMake: $program runs" "$work/cmake/$program"
done

# Systems without it have no users of ctypes.
command -v python3 > /dev/null || exit $failed
python=python3
"$python" -c 'import numpy' 2>/dev/null || python=/usr/bin/python3
example "ctypes: examples/ctypes runs" "$python" examples/ctypes/prefill.py
exit $failed
