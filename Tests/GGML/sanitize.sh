#!/bin/bash
# The library and the backend built with a sanitizer, and tests of single nodes on them.
#
#   sanitize.sh address|thread
#
# OpenMP's threads are not followed: loops are the library's own. The thread sanitizer gets a ggml
# that is built for it (three minutes, once), too, whose threads are its own. Status 77: there is
# no llama.cpp to be had.
set -euo pipefail
cd "$(dirname "$0")/../.."
kind=$1
case $kind in
  address) scratch=.build-asan sanitize="-fsanitize=address,undefined" ;;
  thread) scratch=.build-tsan sanitize="-fsanitize=thread" ;;
  *) exit 2 ;;
esac
llama=$(Tests/GGML/environment.sh) || {
  status=$?
  exit $((status == 3 ? 77 : status))
}
export GGML_NO_BACKTRACE=1 SWIFT_BACKTRACE=enable=no
unset GGML_BACKEND_PATH MLA_VERBOSE LD_PRELOAD
stage=$PWD/$scratch/ggml-stage
out=$PWD/$scratch/ggml
build=$(realpath "${GGML_BUILD:-$llama/build}")
dispatch=()
if [ "$kind" = thread ]; then
  build=$PWD/$scratch/ggml-build
  {
    cmake -S "$llama" -B "$build" -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ \
      -DCMAKE_BUILD_TYPE=RelWithDebInfo -DGGML_SANITIZE_THREAD=ON -DGGML_OPENMP=OFF -DLLAMA_BUILD_TESTS=OFF \
      -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_COMMON=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_CURL=OFF &&
      cmake --build "$build" --target ggml -j "$(nproc)"
  } > "$scratch/ggml-build.log" 2>&1 || {
    tail -5 "$scratch/ggml-build.log"
    exit 1
  }
  # Swift's thread sanitizer knows of Dispatch and wants it linked.
  swift_lib=$(swiftc -print-target-info | sed -n 's/.*"runtimeResourcePath" *: *"\(.*\)".*/\1/p')/linux
  dispatch=(-L"$swift_lib" -Wl,-rpath,"$swift_lib" -Wl,--no-as-needed -ldispatch -lBlocksRuntime -Wl,--as-needed)
fi

# The build that Tests/Gates/sanitize.sh makes; of its tables one of instructions that the CPU has.
if grep -qw avx2 /proc/cpuinfo; then
  export MLA_MODELLED_INSTRUCTIONS=1 MLA_MAX_ISA=avx2
fi
swift build -c release --product mlaprefill --sanitize="$kind" --scratch-path "$scratch"
mkdir -p "$stage/lib" "$stage/include"
cp include/*.h include/*.hpp "$stage/include"
cp "$scratch/release/libmlaprefill.so" "$stage/lib/libmlaprefill.so.1"
# The sanitizer's functions are the program's.
make -s -C Sources/GGMLBackend STAGE="$stage" OUT="$out" GGML="$llama" GGML_BUILD="$build" CXX=clang++ OPENMP= \
  CXXFLAGS="-O1 -g -Wno-unknown-pragmas $sanitize" LDFLAGS="$sanitize ${dispatch[*]}"

compile() {
  # shellcheck disable=SC2086
  clang++ -fuse-ld=lld -std=c++17 -O1 -g $sanitize -isystem "$llama/ggml/include" -I"$stage/include" \
    "${@:2}" Tests/GGML/backend.cpp Tests/GGML/problem.cpp -o "$out/$1" -L"$build/bin" -lggml -lggml-base \
    -Wl,-rpath,"$build/bin" "$out/libmlaprefill.so.1" -Wl,-rpath,"$out" "${dispatch[@]}" -ldl -pthread
}
# What the loader takes for a thread's variables is told from leaks by who calls it.
export ASAN_OPTIONS=exitcode=99:detect_stack_use_after_return=1:fast_unwind_on_malloc=0
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export TSAN_OPTIONS=exitcode=99:halt_on_error=1
backend=$out/libggml-mla.so
status=0
compile nodes Tests/GGML/nodes.cpp
compile host Tests/GGML/host.cpp -Wl,--export-dynamic-symbol=ggml_version
"$out/nodes" "$backend" 8 || status=1
"$out/host" "$backend" || status=1
if [ "$kind" = address ]; then
  compile memory Tests/GGML/memory.cpp Tests/ABI/failing_allocations.cpp
  "$out/memory" "$backend" || status=1
fi
exit $status
