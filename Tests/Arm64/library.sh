#!/bin/bash
# The library as it is built for 64-bit Arm on another machine, and its users' programs with
# it, run under an emulator of Arm processors.
#
#   library.sh build            library, gates on it, programs
#   library.sh abi CPU TABLE PROGRAM...  those of Tests/ABI on a CPU of the emulator's, of which
#                               the strongest table is to be TABLE
#   library.sh examples CPU     the examples in C and C++
#   library.sh python CPU PYTEST-ARGUMENT...  the Python package's tests
set -euo pipefail
cd "$(dirname "$0")/../.."

out=$PWD/.build-aarch64
stage=$out/stage
abi=$out/abi
export SWIFT_BACKTRACE=enable=no

# What it takes is Debian's, or lies there from another time.
mkdir -p "$out"
if ! sdk=$(Sources/Packaging/arm64-sdk.sh test 2> "$out/sdk.log"); then
  cat "$out/sdk.log"
  exit 77
fi

# launcher CPU PROGRAM: the path of what runs a program on that CPU, however it is started: by
# itself, too.
launcher() {
  local file=$out/emulated/$1/$(basename "$2")
  mkdir -p "$(dirname "$file")"
  cat > "$file" <<LAUNCHER
#!/bin/sh
exec "$sdk/qemu-aarch64" -cpu $1 -L "$sdk/sysroot" -0 "\$0" "$2" "\$@"
LAUNCHER
  chmod +x "$file"
  echo "$file"
}

build() {
  local objects=$out/release/mlaprefill.product/Objects.LinkFileList status=0
  make -s install ARCH=aarch64 DESTDIR= PREFIX="$stage"
  python3 Tests/Gates/library.py "$(readlink -f "$stage/lib/libmlaprefill.so")" include/mla_prefill.h || status=1
  python3 Tests/Gates/abi.py check include/mla_prefill.h "$(readlink -f "$stage/lib/libmlaprefill.so")" || status=1
  python3 Tests/Gates/instruction_sets.py "$objects" "$out/release/libmlaprefill.so" || status=1
  python3 Tests/Gates/allocators.py "$objects" || status=1
  make -s -j"$(nproc)" -C Tests/ABI STAGE="$stage" OUT="$abi" openmp= \
    CC="clang --config=$sdk/clang.cfg" CXX="clang++ --config=$sdk/clang.cfg"
  build_examples
  return $status
}

# The examples, with the flags that pkg-config tells their users.
build_examples() {
  local program flags=(-O2 -Wall -Wextra -Wpedantic -Werror "-I$stage/include")
  local link=("-L$stage/lib" -lmlaprefill "-Wl,-rpath,$stage/lib" -lm)
  mkdir -p "$out/examples"
  clang --config="$sdk/clang.cfg" -std=c99 "${flags[@]}" examples/c/prefill.c examples/c/safetensors.c \
    "${link[@]}" -o "$out/examples/prefill"
  clang --config="$sdk/clang.cfg" -std=c99 "${flags[@]}" examples/c/attention.c "${link[@]}" \
    -o "$out/examples/attention_c"
  for program in attention engine_loop custom_backend sparse_step engine/engine; do
    clang++ --config="$sdk/clang.cfg" -std=c++17 "${flags[@]}" "examples/cpp/$program.cpp" "${link[@]}" \
      -o "$out/examples/$(basename "$program")"
  done
}

# run CPU PROGRAM ARGUMENT...: a line for one that says nothing of its own, or ends badly.
run() {
  local said program
  program=$(launcher "$1" "$2")
  if said=$("$program" "${@:3}" 2>&1); then
    grep -q "^ok " <<< "$said" && echo "$said" || echo "ok $(basename "$2") runs on $1"
  else
    echo "$said"
    echo "not ok $(basename "$2") on $1: ended with an error"
    failed=1
  fi
}

abi() {
  local test program failed=0
  export MLA_EXPECT_ISA=$2 MLA_TEST_TABLE=$2
  for test in "${@:3}"; do
    [ "$test" != unload ] || test="unload $stage/lib/libmlaprefill.so.1"
    # shellcheck disable=SC2086
    run "$1" "$abi"/${test%% *} ${test#"${test%% *}"}
  done
  return $failed
}

examples() {
  local program failed=0
  for program in attention_c attention engine_loop custom_backend sparse_step engine; do
    run "$1" "$out/examples/$program"
  done
  run "$1" "$out/examples/prefill" Tests/Data/dsv2_chunked.safetensors
  return $failed
}

# The extension module as CMake builds it, by the sysroot's Python, with what its tests import.
build_python() {
  local include=$sdk/sysroot/usr/include site=$out/python nanobind
  local platforms=(--platform manylinux2014_aarch64 --platform manylinux_2_28_aarch64)
  [ -x "$out/venv/bin/pip" ] || python3 -m venv "$out/venv"
  "$out/venv/bin/pip" install -q 'nanobind>=3'
  nanobind=$("$out/venv/bin/python" -c 'import nanobind; print(nanobind.__path__[0])')
  mkdir -p "$out/extension"
  make -s -j"$(nproc)" -C "$out/extension" -f "$PWD/Tests/Arm64/extension.mk" stage="$stage" \
    compile="clang++ --config=$sdk/clang.cfg" \
    sources="$(echo "$PWD"/python/src/extension/*.cpp) $nanobind/src/nb_combined.cpp" \
    include="$stage/include $include/python3.11 $include $nanobind/include $nanobind/ext/robin_map/include"
  if [ ! -e "$site/pytest" ]; then
    "$out/venv/bin/pip" install -q --target "$site" "${platforms[@]}" --python-version 3.11 --only-binary :all: \
      numpy ml_dtypes safetensors pytest hypothesis
  fi
  rm -rf "$site/mla_prefill"
  cp -r python/src/mla_prefill "$site"
  cp "$out/extension/_core.so" "$site/mla_prefill"
  cp -L "$stage/lib/libmlaprefill.so.1" "$site/mla_prefill"
}

python() {
  local python
  build_python
  python=$(launcher "$1" "$sdk/sysroot/usr/bin/python3.11")
  # Tests run it in environments of their own.
  sed -i "2i export PYTHONHOME='$sdk/sysroot/usr' PYTHONPATH='$out/python' PYTHONDONTWRITEBYTECODE=1" "$python"
  CXX="clang++ --config=$sdk/clang.cfg" "$python" -m pytest -v -p no:cacheprovider --rootdir=Tests/Python "${@:2}"
}

"$@"
