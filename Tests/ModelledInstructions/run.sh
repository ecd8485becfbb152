#!/bin/bash
# Every kernel table on any CPU with AVX2, on the model of the instructions that it lacks.
# Portable and AVX2 are in this build as they are in the product; of the others it does not
# show the compiler's code for the real target, and no speed.
set -u
cd "$(dirname "$0")/../.." || exit 1

model=$PWD/Tests/ModelledInstructions
scratch=.build-tables
stage=$PWD/$scratch/stage
abi=$PWD/$scratch/abi
tests=$scratch/release/MLAPrefillPackageTests.xctest
if ! grep -qw avx2 /proc/cpuinfo; then
  echo "table portable: see the other steps; this CPU lacks AVX2, of which the model is made"
  exit 0
fi
export SWIFT_BACKTRACE=enable=no MLA_MODELLED_INSTRUCTIONS=1
unset MLA_MAX_ISA

# The model of each instruction against the CPU's own.
compare() {
  local out=$scratch/comparison flags="-O2 -Wall -Wextra -Werror -Wno-psabi"
  mkdir -p "$out"
  # shellcheck disable=SC2086
  clang $flags -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512bf16 -mamx-tile -mamx-bf16 \
    -DSIDE=real_instructions -c "$model/Comparison/instructions.c" -o "$out/real.o" &&
    clang $flags -mavx2 -mfma -mf16c -I"$model/compiler" -I"$model/include" \
      -DSIDE=modelled_instructions -c "$model/Comparison/instructions.c" -o "$out/model.o" &&
    clang $flags -I"$model/include" "$model/Comparison/compare.c" "$model/tiles.c" \
      "$model/tile_state.c" "$out/real.o" "$out/model.o" -o "$out/compare" &&
    "$out/compare"
}

build() {
  swift build --build-tests -c release -Xswiftc -enable-testing --scratch-path "$scratch" || return 1
  mkdir -p "$stage/lib" "$stage/include"
  cp include/*.h include/*.hpp "$stage/include"
  cp "$scratch/release/libmlaprefill.so" "$stage/lib/libmlaprefill.so.1"
  ln -sf libmlaprefill.so.1 "$stage/lib/libmlaprefill.so"
  make -s -C Tests/ABI STAGE="$stage" OUT="$abi"
}

summary_tells_of_the_model() {
  local line
  line=$(python3 -c 'import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
library.mla_cpu_summary.restype = ctypes.c_char_p
print(library.mla_cpu_summary().decode())' "$stage/lib/libmlaprefill.so.1")
  case $line in
    *modelled*"(host amx)"*) echo "ok the summary tells of the model: $line" ;;
    *) echo "not ok the summary tells of the model: $line" && return 1 ;;
  esac
}

# All tests of table $1.
table() {
  local status=0 test modules="KernelTests|MLACoreTests"
  export MLA_MAX_ISA=$1 MLA_EXPECT_ISA=$1 MLA_TEST_TABLE=$1
  [ "$1" != amx ] || modules+="|AMXKernelTests"
  "$tests" "$("$tests" --list-tests | grep -E "^($modules)\." | paste -sd,)" 2>&1 || status=1
  for test in golden bits shapes interleaved host wrapper vtable layer_backend bad_input arithmetic \
    numbers ds_mla "malformed_calls 30000"; do
    # shellcheck disable=SC2086
    "$abi"/$test || status=1
  done
  return $status
}

status=0
compare || status=1
build || exit 1
summary_tells_of_the_model || status=1
for isa in portable avx2 avx512 avx512_bf16 amx; do
  (table $isa) > "$scratch/$isa.log" || status=1
  cat "$scratch/$isa.log"
  good=$(grep -cE "^ok |^Test Case '.*' passed " "$scratch/$isa.log")
  bad=$(grep -cE "^not ok |^Test Case '.*' failed " "$scratch/$isa.log")
  echo "table $isa: $good passed, $bad failed"
done
exit $status
