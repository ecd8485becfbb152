#!/bin/bash
# The tests under Tests/: one line per step, the counts at the end.
#
#   Tests/run.sh             what a change can break
#   Tests/run.sh tables      of these and the rest what tests kernel tables
#   Tests/run.sh long        the rest: emulated CPUs, sanitizers, long searches
#   Tests/run.sh STEP...     the steps of these names, of either, and what they need
#
# Each kernel table is tested by the first: on the host's own instructions where it has
# them, else on a model of these. Long steps do the same another way: capped hosts, the
# model of what the host has.
#
# Run by `make test` and `make test-long`, which install what is missing. With MLA_MAX_ISA
# in the environment a host is tested as one that has no more: MLA_MAX_ISA=avx2 make test.
# With UNTIL, a time of `date +%s`, long steps that would take longer are left out, and those that
# take ten minutes more are ended.
set -u
cd "$(dirname "$0")/.." || exit 1
. Tests/steps.sh
. Tests/tables.sh

stage=$PWD/.build/stage
abi=$PWD/.build/abi
# Of Swift's own crash reporter: tests expect plain exits.
export SWIFT_BACKTRACE=enable=no
# Each build says what it is.
unset MLA_TESTABLE MLA_MODELLED_INSTRUCTIONS
unset MLA_PREFILL_BACKEND CC CXX CFLAGS CXXFLAGS LDFLAGS MAKEFLAGS MFLAGS

table=$(strongest_table)
# Of the Swift tests. Portable and AVX2 are the same in the model's build, which then
# saves one.
test_build=.build-tests
[ "$table" != avx2 ] || test_build=.build-tables
swift_tests=$test_build/release/MLAPrefillPackageTests.xctest

build() { make -s install PREFIX="$stage"; }

build_abi() { make -s -j"$(nproc)" -C Tests/ABI STAGE="$stage" OUT="$abi"; }

build_swift_tests() { MLA_TESTABLE=1 swift build --build-tests -c release --scratch-path .build-tests; }

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

gates() {
  local status=0 objects=.build/release/mlaprefill.product/Objects.LinkFileList
  Tests/Gates/headers.sh || status=1
  python3 Tests/Gates/layers.py .build/release || status=1
  python3 Tests/Gates/library.py "$(readlink -f "$stage/lib/libmlaprefill.so")" include/mla_prefill.h || status=1
  python3 Tests/Gates/abi.py check include/mla_prefill.h "$(readlink -f "$stage/lib/libmlaprefill.so")" || status=1
  python3 Tests/Gates/abi_test.py include/mla_prefill.h "$stage" || status=1
  python3 Tests/Gates/instruction_sets.py $objects .build/release/libmlaprefill.so || status=1
  python3 Tests/Gates/allocators.py $objects || status=1
  # Faults that no longer apply are no test of the tests.
  python3 Tests/Mutants/run.py --check || status=1
  python3 Tests/SoftwareGPU/mutants.py --check || status=1
  return $status
}

readme() { "$(python_with_numpy)" Tests/Gates/readme.py "$stage"; }

# The site; its samples are the step `readme`'s.
docs() { Sources/Documentation/build.sh && python3 Tests/Gates/site.py .build/docs; }

ctypes() {
  MLA_PREFILL_LIBRARY=$stage/lib/libmlaprefill.so.1 "$(python_with_numpy)" Tests/ABI/ctypes_backend.py
}

# all PREFIX TEST...: runs each of the ABI's tests by way of PREFIX.
all() {
  local prefix=$1 status=0 test
  for test in "${@:2}"; do
    # shellcheck disable=SC2086
    $prefix "$abi"/$test || status=1
  done
  return $status
}

abi_tests() {
  local status=0
  all "" golden bits shapes one_call interleaved host wrapper vtable devices loads_nothing layer_backend \
    bad_input malformed_calls environment first_use log_callback calls threads arithmetic numbers ds_mla weight_scales layouts \
    gather indexer index_store || status=1
  "$abi/unload" "$stage/lib/libmlaprefill.so.1" || status=1
  ctypes || status=1
  return $status
}

# On the model's build a host has AMX, which a step of its own tests.
swift_tests() {
  if [ $test_build = .build-tables ]; then
    MLA_MAX_ISA=avx2 "$swift_tests" "$(list_tests "$swift_tests" "^(KernelTests|MLACoreTests)\.")"
  else
    "$swift_tests" "$(list_tests "$swift_tests" "^(?!.*CoreModelTests)")"
  fi
}

# How long AMX kernels keep a core at work, by a model of it.
core_model() { "$swift_tests" "$(list_tests "$swift_tests" "CoreModelTests")"; }

memory_tests() { all "" allocation_failures batch_limits short_memory; }

# What the compiler made of the AMX kernels for their own CPU has the bits of the model's
# build, in which their results are tested.
amx_bits() {
  local build output bits=()
  for build in .build-tests .build-tables; do
    output=$($build/release/MLAPrefillPackageTests.xctest AMXKernelTests.AMXBitsTests) ||
      echo "not ok AMX kernels of $build fail"
    bits+=("$(grep "^bits " <<< "$output")")
  done
  if [ -z "${bits[0]}" ] || [ "${bits[0]}" = "${bits[1]}" ]; then
    echo "ok AMX kernels have the bits of the modelled ones: $(grep -c . <<< "${bits[0]}") results"
  else
    echo "not ok AMX kernels have other bits than the modelled ones"
    diff <(echo "${bits[0]}") <(echo "${bits[1]}")
  fi
}

# on ARCHITECTURE COMMAND...: what other machines cannot do is left out there.
on() {
  if [ "$(uname -m)" = "$1" ]; then "${@:2}"; else
    echo "is for machines of $1"
    exit 77
  fi
}

# CPUs that lack what the build machine has: $1 of qemu, for table $2.
emulate() {
  all "env -u MLA_MAX_ISA MLA_EXPECT_ISA=$2 qemu-x86_64 -cpu $1" \
    "host versions" "host cpu" "golden bf16" wrapper vtable layer_backend
}

emulate_both() {
  local status=0
  emulate Haswell-noTSX avx2 || status=1
  emulate Westmere portable || status=1
  return $status
}

# The Swift tests that look at what the code computes: not at the machine itself,
# which an emulated CPU contradicts, nor at how much memory is used, and not the long
# random searches, which have run natively on every table.
emulate_swift_tests() {
  local tests
  tests=$(list_tests "$swift_tests" "^(KernelTests|MLACoreTests)\." | tr , '\n' |
    grep -vE "RuntimeHostTests|RuntimeParallelLoopTests" |
    grep -vE "/test(RandomProblemsAgainstFloat64|SameBitsForAnyThreads|ContextChunksAgainst)" |
    grep -vE "/test(EveryBackendTableAndLongContext|EveryDimensionAgainstFloat64)" |
    grep -vE "/test(AgreesWithFloat64AndTheFusedPath|Float8IsTheFloat32Result|QuantizedOutput)" |
    grep -vE "/test(EveryCacheFormat|QuantizedWeightsOfEveryDimension|RoundingKeysIsWhatMovesLSE)" |
    grep -vE "/test(LongContexts|WorkspaceAndBoundHold|SizesBeyondMemory)" |
    paste -sd,)
  # The modelled instructions would run there, too.
  MLA_MAX_ISA=$2 qemu-x86_64 -cpu "$1" "$swift_tests" "$tests"
}

# A 64-bit Arm CPU of the emulator's, whose strongest table is $2: what knows of the
# architecture, and what computes. The rest of Tests/ABI takes hours there, or looks at the
# processors and processes of the machine itself.
emulate_arm() {
  local status=0
  Tests/Arm64/library.sh abi "$@" "host versions" "host cpu info" "host fork" "golden bf16" wrapper vtable \
    layer_backend devices loads_nothing bad_input "malformed_calls 2000" environment log_callback \
    "arithmetic registered" "arithmetic plans" "arithmetic log" numbers ds_mla weight_scales layouts gather unload || status=1
  Tests/Arm64/library.sh examples "$@" || status=1
  return $status
}

# The Swift tests there: of kernels, and of what the core does by architecture or in threads.
emulate_arm_swift() {
  local status=0 tests
  Tests/Arm64/swift_tests.sh build || return
  Tests/Arm64/swift_tests.sh neoverse-v1 neon_bf16 KernelTests || status=1
  Tests/Arm64/swift_tests.sh cortex-a76 neon KernelTests || status=1
  for tests in Runtime Selector Registry Schedule Tensor Attention Merge; do
    Tests/Arm64/swift_tests.sh neoverse-v1 neon_bf16 MLACoreTests "$tests" || status=1
  done
  return $status
}

# The Python package's there. Without torch, and without what starts Python over and over, or
# the machine's own programs.
emulate_arm_python() {
  local tests
  tests=$(grep -LE "subprocess|native_code" Tests/Python/test_*.py | grep -vE "torch|vllm|selftest")
  # shellcheck disable=SC2086
  Tests/Arm64/library.sh python neoverse-v1 $tests Tests/Python/test_import.py::test_import
}

# Malformed calls of a kind that differs each day.
fuzz() {
  local seed=$(($(date +%s) / 86400))
  echo "seed $seed"
  "$abi/malformed_calls" 2000000 $seed && "$abi/malformed_calls" 1000000 $seed 1
}

# Faults planted in the CUDA kernels, or in the model that they are tested on.
gpu_mutants() { python3 Tests/SoftwareGPU/mutants.py "$1" ".build/gpu-mutants/$1"; }

# declare_steps: what a change can break, what takes longest first.
declare_steps() {
  local each tests_step=build-tests
  step build "" build
  step build-model "" on x86_64 Tests/ModelledInstructions/build.sh
  if [ $test_build = .build-tables ]; then
    tests_step=build-model
  else
    step build-tests "" build_swift_tests
  fi
  step build-abi "build" build_abi
  step python "build" Tests/Python/run.sh
  step abi "build-abi" abi_tests
  step memory "build-abi" memory_tests
  step gates "build" gates
  for each in $(tables_above "$table"); do
    step "model-$each" "build-abi build-model" on x86_64 Tests/ModelledInstructions/run.sh "$each"
  done
  step swift "$tests_step" swift_tests
  [ $test_build = .build-tables ] || step amx-bits "build-tests build-model" on x86_64 amx_bits
  step examples "build" Tests/Gates/install.sh
  step readme "build" readme
  step sdist "" Tests/Packaging/sdist.sh
  step workflows "" Tests/Gates/workflows.sh
  step mpi "build" Tests/Distributed/run.sh "$stage"
  step gpu-model "" Tests/SoftwareGPU/run.sh
  step gpu "build" Tests/GPU/run.sh
  step gpu-python "python gpu" Tests/GPU/run.sh python
  step arm64 "" on x86_64 Tests/Arm64/run.sh
  step qemu "build-abi" on x86_64 emulate_both

  local kernels="Sources/MLAKernel Sources/SharedKernels Sources/MLAShims"
  for each in $all_tables; do
    [ "$each" != "$table" ] || break
    long_step "capped-$each" 60 "Sources/MLACore $kernels" "build-abi $tests_step" test_table "$each" $test_build
  done
  for each in avx512 avx512_bf16 amx; do
    [ -n "${commands[model-$each]:-}" ] ||
      long_step "model-$each" 120 "$kernels Tests/ModelledInstructions" "build-abi build-model" \
        on x86_64 Tests/ModelledInstructions/run.sh "$each"
  done
  [ $test_build = .build-tables ] || long_step core-model 240 "Sources/MLAKernelsAMX" "$tests_step" on x86_64 core_model
  long_step qemu-haswell 120 "$kernels" "$tests_step" on x86_64 emulate_swift_tests Haswell-noTSX avx2
  long_step qemu-westmere 120 "$kernels" "$tests_step" on x86_64 emulate_swift_tests Westmere portable
  # Of the whole library, where step arm64 has the kernels.
  local arm="$kernels Sources/MLACore/Runtime Sources/Packaging Tests/Arm64 Package.swift"
  long_step arm64-build 240 "$arm" "" on x86_64 Tests/Arm64/library.sh build
  long_step arm64-bf16 300 "$arm" "arm64-build" on x86_64 emulate_arm neoverse-v1 neon_bf16
  long_step arm64-neon 300 "$arm" "arm64-build" on x86_64 emulate_arm cortex-a76 neon
  # A CPU with all that Arm has given FPCR.
  long_step arm64-arithmetic 400 "$arm" "arm64-build" on x86_64 Tests/Arm64/library.sh abi max neon_bf16 arithmetic
  long_step arm64-swift 600 "$arm" "arm64-build" on x86_64 emulate_arm_swift
  long_step arm64-python 600 "$arm python" "arm64-build" on x86_64 emulate_arm_python
  long_step python-torch 60 "python" "build" Tests/Python/run.sh torch
  long_step sdist-wheel 150 "python Package.swift" "sdist" Tests/Packaging/sdist.sh wheel
  long_step packages 100 "Sources/Packaging Tests/Packaging include examples" "build" Tests/Packaging/packages.sh "$(uname -m)"
  long_step packages-arm64 600 "Sources/Packaging Tests/Packaging" "arm64-build" on x86_64 Tests/Packaging/packages.sh aarch64
  long_step profile 5 "Makefile" "build" Tests/Gates/profile.sh "$stage"
  long_step wheels 280 "python Sources/Packaging Package.swift" "build arm64-build" on x86_64 Tests/Packaging/wheels.sh
  # In systems without compilers, and with an older C library.
  long_step wheels-roots 400 "python Sources/Packaging Package.swift" "wheels" on x86_64 Tests/Packaging/roots.sh
  long_step docs 60 "Sources/Documentation include python README.md" "readme" docs
  long_step address 420 "Sources/MLACore Sources/MLAShims Sources/MLAAllocation" "" \
    Tests/Gates/sanitize.sh address
  long_step thread 300 "Sources/MLACore/Runtime Sources/MLACore/Backends Sources/MLAShims" "" \
    Tests/Gates/sanitize.sh thread
  long_step gpu-kernels-mutants 900 "Sources/MLACUDAKernels Tests/SoftwareGPU/kernels" "" gpu_mutants kernels
  long_step gpu-model-mutants 180 "Tests/SoftwareGPU/include Tests/SoftwareGPU/machine Tests/SoftwareGPU/tests" "" \
    gpu_mutants model
  long_step ggml-address 240 "Sources/GGMLBackend" "address" Tests/GGML/sanitize.sh address
  long_step ggml-thread 420 "Sources/GGMLBackend" "thread" Tests/GGML/sanitize.sh thread
  long_step fuzz 60 "Sources/MLACore/Validation Sources/MLAPrefill include" "build-abi" fuzz
}

declare_steps
case ${1:-} in
  "") run_steps "${steps[@]}" ;;
  # shellcheck disable=SC2046
  tables) run_steps swift $(tr ' ' '\n' <<< "${steps[*]} ${long_steps[*]}" | grep -E "^(model|capped)-") ;;
  # shellcheck disable=SC2046
  long) run_steps $(long_steps_in_turn) ;;
  *) run_steps "$@" ;;
esac
