#!/bin/bash
# Everything under Tests/, one line per step, the counts at the end.
#
#   Tests/run.sh [STEP...]      the steps of these names only; default: all
#
# A step's output goes to .build/test-logs/STEP.log; a failing step's end of it is
# shown. Run by `make test`, which installs what is missing. With MLA_MAX_ISA in the
# environment a host is tested as one that has no more: MLA_MAX_ISA=avx2 make test.
set -u
cd "$(dirname "$0")/.." || exit 1
. Tests/tables.sh

root=$PWD
logs=$root/.build/test-logs
stage=$root/.build/stage
abi=$root/.build/abi
mkdir -p "$logs"
# Of Swift's own crash reporter: tests expect plain exits.
export SWIFT_BACKTRACE=enable=no
unset MLA_PREFILL_BACKEND CC CXX CFLAGS CXXFLAGS LDFLAGS MAKEFLAGS MFLAGS

passed=0
failed=0
only=("$@")
table=$(strongest_table)
# Of the Swift tests. Portable and AVX2 are the same in the build of `tables`, which then
# saves one.
test_build=.build-tests
[ "$table" != avx2 ] || test_build=.build-tables

# step NAME COMMAND...: the command's tests are lines that begin with "ok" or
# "not ok", XCTest's or pytest's; a command without any counts as one test.
step() {
  local name=$1 started=$SECONDS status good bad
  shift
  if [ ${#only[@]} -gt 0 ] && [[ " ${only[*]} " != *" $name "* ]]; then return; fi
  "$@" >"$logs/$name.log" 2>&1
  status=$?
  good=$(grep -cE "^ok |^Test Case '.*' passed |(^| )PASSED( |$)" "$logs/$name.log")
  bad=$(grep -cE "^not ok |^Test Case '.*' failed |(^| )FAILED( |$)" "$logs/$name.log")
  if [ $status -eq 0 ] && [ "$bad" -eq 0 ]; then
    [ "$good" -gt 0 ] || good=1
    printf 'PASS %-12s %4d tests %5d s\n' "$name" "$good" $((SECONDS - started))
    grep "^table " "$logs/$name.log"
  else
    [ "$bad" -gt 0 ] || bad=1
    printf 'FAIL %-12s %4d of %d %5d s, see %s\n' "$name" "$bad" $((good + bad)) \
      $((SECONDS - started)) "$logs/$name.log"
    grep -E -A4 "^not ok |error:|Sanitizer" "$logs/$name.log" | head -30
    tail -15 "$logs/$name.log"
  fi
  passed=$((passed + good))
  failed=$((failed + bad))
}

# The first Python that has numpy.
python_with_numpy() {
  local python
  for python in python3 /usr/bin/python3; do
    if "$python" -c 'import numpy' 2>/dev/null; then
      echo "$python"
      return
    fi
  done
  echo python3
}

build() { make -s install PREFIX="$stage" && make -s -C Tests/ABI STAGE="$stage" OUT="$abi"; }

gates() {
  local status=0
  Tests/Gates/headers.sh || status=1
  python3 Tests/Gates/layers.py .build/release || status=1
  python3 Tests/Gates/library.py "$(readlink -f "$stage/lib/libmlaprefill.so")" include/mla_prefill.h || status=1
  python3 Tests/Gates/instruction_sets.py .build/release/mlaprefill.product/Objects.LinkFileList \
    .build/release/libmlaprefill.so || status=1
  python3 Tests/Gates/allocators.py .build/release/mlaprefill.product/Objects.LinkFileList || status=1
  return $status
}

# all PREFIX DIRECTORY TEST...: runs each test by way of PREFIX.
all() {
  local prefix=$1 directory=$2 status=0 test
  shift 2
  for test in "$@"; do
    # shellcheck disable=SC2086
    $prefix $directory/$test || status=1
  done
  return $status
}

readme() { "$(python_with_numpy)" Tests/Gates/readme.py "$stage"; }

ctypes() {
  MLA_PREFILL_LIBRARY=$stage/lib/libmlaprefill.so.1 "$(python_with_numpy)" Tests/ABI/ctypes_backend.py
}

abi_tests() {
  local status=0
  all "" "$abi" golden bits shapes interleaved host wrapper vtable layer_backend bad_input || status=1
  all "" "$abi" malformed_calls environment first_use log_callback threads arithmetic numbers ds_mla || status=1
  all "" "$abi" allocation_failures batch_limits short_memory || status=1
  "$abi/unload" "$stage/lib/libmlaprefill.so.1" || status=1
  ctypes || status=1
  return $status
}

# The Swift tests that look at what the code computes: not at the machine itself,
# which an emulated CPU contradicts, nor at how much memory is used, and not the long
# random searches, which have run natively on every table.
emulated_swift_tests() {
  $test_build/release/MLAPrefillPackageTests.xctest --list-tests |
    grep -E "^(KernelTests|MLACoreTests)\." |
    grep -vE "RuntimeHostTests|RuntimeParallelLoopTests" |
    grep -vE "/test(RandomProblemsAgainstFloat64|SameBitsForAnyThreads|ContextChunksAgainst)" |
    grep -vE "/test(EveryBackendTableAndLongContext|EveryDimensionAgainstFloat64)" |
    grep -vE "/test(AgreesWithFloat64AndTheFusedPath|Float8IsTheFloat32Result|QuantizedOutput)" |
    grep -vE "/test(EveryCacheFormat|QuantizedWeightsOfEveryDimension|RoundingKeysIsWhatMovesLSE)" |
    grep -vE "/test(LongContexts|WorkspaceAndBoundHold|SizesBeyondMemory)" |
    paste -sd,
}

# CPUs that lack what the build machine has.
qemu() {
  local status=0 model table tests
  tests=$(emulated_swift_tests)
  while read -r model table; do
    all "env MLA_EXPECT_ISA=$table qemu-x86_64 -cpu $model" "$abi" \
      "host versions" "host cpu" "golden bf16" wrapper vtable layer_backend || status=1
    # The modelled instructions would run there, too.
    MLA_MAX_ISA=$table qemu-x86_64 -cpu "$model" \
      $test_build/release/MLAPrefillPackageTests.xctest "$tests" || status=1
  done <<< "Haswell-noTSX avx2
Westmere portable"
  return $status
}

swift_tests() {
  if [ $test_build = .build-tables ]; then
    echo "the tables' build has all that this host runs"
    return
  fi
  swift build --build-tests -c release -Xswiftc -enable-testing --scratch-path .build-tests &&
    swift test --skip-build -c release -Xswiftc -enable-testing --scratch-path .build-tests &&
    amx_bits
}

# What the compiler made of the AMX kernels for their own CPU has the bits of the tables'
# build, in which their results are tested.
amx_bits() {
  local build bits=()
  if [ ! -x .build-tables/release/MLAPrefillPackageTests.xctest ]; then
    echo "the tables' build is not there to compare AMX kernels' bits with"
    return
  fi
  for build in .build-tests .build-tables; do
    bits+=("$($build/release/MLAPrefillPackageTests.xctest AMXKernelTests.AMXBitsTests | grep "^bits ")")
  done
  if [ -z "${bits[0]}" ] || [ "${bits[0]}" = "${bits[1]}" ]; then
    echo "ok AMX kernels have the bits of the modelled ones: $(grep -c . <<< "${bits[0]}") results"
  else
    echo "not ok AMX kernels have other bits than the modelled ones"
    diff <(echo "${bits[0]}") <(echo "${bits[1]}")
  fi
}

step build build
step gates gates
step abi abi_tests
step examples Tests/Gates/install.sh
step readme readme
step tables Tests/ModelledInstructions/run.sh
step swift swift_tests
step python Tests/Python/run.sh
step qemu qemu
step arm64 Tests/Arm64/run.sh
step address Tests/Gates/sanitize.sh address
step thread Tests/Gates/sanitize.sh thread

echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
