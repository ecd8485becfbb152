#!/bin/bash
# The library built with a sanitizer, and the C ABI tests on it.
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
root=$PWD
stage=$root/$scratch/stage
abi=$root/$scratch/abi

swift build -c release --product mlaprefill --sanitize="$kind" --scratch-path "$scratch" || exit 1
mkdir -p "$stage/lib" "$stage/include" || exit 1
cp include/*.h include/*.hpp "$stage/include"
cp "$scratch/release/libmlaprefill.so" "$stage/lib/libmlaprefill.so.1"
ln -sf libmlaprefill.so.1 "$stage/lib/libmlaprefill.so"
make -s -C Tests/ABI STAGE="$stage" OUT="$abi" SANITIZE="$kind" || exit 1

# Reports end the program, with another status than a failing test's.
export ASAN_OPTIONS=exitcode=99:detect_stack_use_after_return=1
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export TSAN_OPTIONS=exitcode=99:halt_on_error=1
status=0
if [ "$kind" = address ]; then
  for test in golden shapes host wrapper vtable layer_backend bad_input malformed_calls; do
    "$abi/$test" || status=1
  done
else
  # fork() in a process with threads is what this sanitizer cannot follow.
  "$abi/host" threads || status=1
  "$abi/bits" "host parallel_for context bf16" || status=1
fi
exit $status
