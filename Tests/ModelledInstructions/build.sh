#!/bin/bash
# The library and the Swift tests, with the model of what AVX2 lacks, in .build-tables; and
# the model of each instruction against the CPU's own.
set -u
cd "$(dirname "$0")/../.." || exit 1

model=$PWD/Tests/ModelledInstructions
scratch=.build-tables
library=$scratch/stage/lib/libmlaprefill.so.1
if ! grep -qw avx2 /proc/cpuinfo; then
  echo "ok nothing is modelled: this CPU lacks AVX2, of which the model is made"
  exit 0
fi
export MLA_MODELLED_INSTRUCTIONS=1 MLA_TESTABLE=1
unset MLA_MAX_ISA

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
  swift build --build-tests -c release --scratch-path "$scratch" || return 1
  mkdir -p "$(dirname "$library")"
  cp "$scratch/release/libmlaprefill.so" "$library"
}

summary_tells_of_the_model() {
  local line
  line=$(python3 -c 'import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
library.mla_cpu_summary.restype = ctypes.c_char_p
print(library.mla_cpu_summary().decode())' "$library")
  case $line in
    *modelled*"(host amx)"*) echo "ok the summary tells of the model: $line" ;;
    *) echo "not ok the summary tells of the model: $line" && return 1 ;;
  esac
}

status=0
compare || status=1
build || exit 1
summary_tells_of_the_model || status=1
exit $status
