#!/bin/bash
# The library built with a sanitizer, and the C ABI tests on it: on every kernel table,
# where the CPU has the AVX2 of which the model of the others' instructions is made.
#
#   sanitize.sh address|thread
#
# Run in the project's folder.
set -u
kind=$1
case $kind in
  address) scratch=.build-asan ;;
  thread) scratch=.build-tsan ;;
  *) exit 2 ;;
esac
tables=portable
if grep -qw avx2 /proc/cpuinfo; then
  export MLA_MODELLED_INSTRUCTIONS=1
  tables="portable avx2 avx512 avx512_bf16 amx"
fi
root=$PWD
stage=$root/$scratch/stage
abi=$root/$scratch/abi

swift build -c release --product mlaprefill --sanitize="$kind" --scratch-path "$scratch" || exit 1
mkdir -p "$stage/lib" "$stage/include" || exit 1
cp include/*.h include/*.hpp "$stage/include"
cp "$scratch/release/libmlaprefill.so" "$stage/lib/libmlaprefill.so.1"
ln -sf libmlaprefill.so.1 "$stage/lib/libmlaprefill.so"
make -s -j"$(nproc)" -C Tests/ABI STAGE="$stage" OUT="$abi" SANITIZE="$kind" || exit 1

# Reports end the program, with another status than a failing test's.
export ASAN_OPTIONS=exitcode=99:detect_stack_use_after_return=1
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export TSAN_OPTIONS=exitcode=99:halt_on_error=1
status=0
for table in $tables; do
  export MLA_MAX_ISA=$table MLA_EXPECT_ISA=$table MLA_TEST_TABLE=$table
  if [ "$kind" = address ]; then
    for test in golden shapes numbers "host cpu"; do
      # shellcheck disable=SC2086
      "$abi"/$test || status=1
    done
  else
    # fork() in a process with threads is what this sanitizer cannot follow.
    "$abi/host" threads || status=1
  fi
done
# What does not depend on the table much, on the last.
unset MLA_TEST_TABLE
if [ "$kind" = address ]; then
  for test in host wrapper vtable devices layer_backend bad_input malformed_calls allocation_failures; do
    "$abi/$test" || status=1
  done
else
  "$abi/bits" "host parallel_for context bf16" || status=1
fi
exit $status
