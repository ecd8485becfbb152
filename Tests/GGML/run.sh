#!/bin/bash
# The backend that llama.cpp loads, in llama.cpp.
#
#   Tests/GGML/run.sh            the tests
#   Tests/GGML/run.sh speed      models and nodes with the backend and without, in turns; on a
#                                machine that does nothing else: threads of either spin
#   Tests/GGML/run.sh all        the tests, and all that test-backend-ops has on attention
#
# See environment.sh for where llama.cpp comes from; sanitize.sh has the sanitizers.
set -euo pipefail
cd "$(dirname "$0")/../.."

unset GGML_BACKEND_PATH MLA_VERBOSE LD_PRELOAD
# A failing assertion is not for a debugger.
export GGML_NO_BACKTRACE=1 SWIFT_BACKTRACE=enable=no
llama=$(Tests/GGML/environment.sh) || {
  status=$?
  [ $status -ne 3 ] || echo "llama.cpp: all of its tests are left out"
  exit $((status == 3 ? 0 : status))
}
make -s ggml GGML="$llama" > /dev/null
bin=$(realpath "${GGML_BUILD:-$llama/build}")/bin
out=$PWD/.build/ggml
backend=$out/libggml-mla.so

compile() {
  g++ -std=c++17 -O2 -Wall -Wextra -isystem "$llama/ggml/include" -isystem "$llama/include" \
    "${@:2}" -o "$out/$1" -L"$bin" -lllama -lggml -lggml-base -Wl,-rpath,"$bin" -pthread
}

speed() {
  compile speed Tests/GGML/speed.cpp
  compile node_speed Tests/GGML/node_speed.cpp Tests/GGML/problem.cpp Tests/GGML/backend.cpp -march=native
  cd "$bin"
  echo "ggml's own | with the backend, and the ratio of turns: medians"
  echo "tokens a second:"
  local model tokens
  for model in deepseek2 llama; do
    for tokens in ${TOKENS:-512 4096 16384}; do "$out/speed" $model "$tokens" "$backend"; done
  done
  echo "a node's attention on one thread, of the rate at which floats in registers are multiplied and added:"
  "$out/node_speed" "$backend"
}

# test-backend-ops on the cases that a pattern names; its last lines say how many passed.
operators() {
  if GGML_BACKEND_PATH=$backend "$bin/test-backend-ops" test -o FLASH_ATTN_EXT -b MLA -p "$1" > "$out/operators.log" 2>&1 &&
    ! grep -q FAIL "$out/operators.log"; then
    echo "ok test-backend-ops: $(grep -oE '[0-9]+/[0-9]+ tests passed' "$out/operators.log")," \
      "$(grep -c 'not supported' "$out/operators.log") declined"
  else
    grep -E "FAIL|error" "$out/operators.log" | head -20
    echo "not ok test-backend-ops, see $out/operators.log"
    return 1
  fi
}

# llama-server on a model in a file.
server() {
  if [ ! -e "$bin/llama-server" ]; then
    echo "llama-server: left out, it is not in $bin"
    return
  fi
  compile file Tests/GGML/file.cpp
  "$out/file" "$out/tiny.gguf" 2> "$out/file.log" || return
  "${PYTHON:-python3}" Tests/GGML/server.py "$bin/llama-server" "$out/tiny.gguf" "$backend"
}

# refuses NAME MESSAGE COMMAND...
refuses() {
  if "${@:3}" > "$out/refusal.log" 2>&1 || ! grep -qF "$2" "$out/refusal.log"; then
    echo "not ok $1 is refused: $(tail -1 "$out/refusal.log")"
    return 1
  fi
  echo "ok $1 is refused"
}

# What cannot be built for: no ggml, no build of it, a ggml with another API for backends.
refusals() {
  local status=0 none=$out/none another=$out/another
  local build=(make -s -C Sources/GGMLBackend "STAGE=$PWD/.build/stage" "OUT=$none")
  mkdir -p "$none" "$another"
  refuses "a folder without ggml" "must be the source of llama.cpp or ggml" "${build[@]}" GGML="$none" || status=1
  refuses "a folder without a build" "must be a build with shared libraries" \
    "${build[@]}" GGML="$llama" GGML_BUILD="$none" || status=1
  mkdir -p "$another/ggml"
  ln -sfn "$llama/ggml/src" "$another/ggml/src"
  sed 's/^set(GGML_VERSION_MAJOR .*/set(GGML_VERSION_MAJOR 999)/' "$llama/ggml/CMakeLists.txt" \
    > "$another/ggml/CMakeLists.txt"
  refuses "the source of another version" "is ggml 999." \
    "${build[@]}" GGML="$another" GGML_BUILD="$(dirname "$bin")" || status=1
  sed 's/\(define GGML_BACKEND_API_VERSION\) .*/\1 999/' "$llama/ggml/src/ggml-backend-impl.h" \
    > "$another/ggml-backend-impl.h"
  refuses "another API for backends" "written for version 2 of ggml's backend API" \
    g++ -fsyntax-only -isystem "$another" -isystem "$llama/ggml/include" -isystem "$llama/ggml/src" -Iinclude \
    -DMLA_GGML_VERSION='""' Sources/GGMLBackend/Backend.cpp || status=1
  return $status
}

if [ "${1:-}" = speed ]; then
  speed
  exit
fi
# Threads of a machine that is busy are not to spin while others wait for it.
export OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=0
backend_tests=(Tests/GGML/backend.cpp Tests/GGML/problem.cpp)
compile nodes Tests/GGML/nodes.cpp "${backend_tests[@]}"
compile host Tests/GGML/host.cpp "${backend_tests[@]}" -Wl,--export-dynamic-symbol=ggml_version \
  -Iinclude "$out/libmlaprefill.so.1" -Wl,-rpath,"$out"
compile memory Tests/GGML/memory.cpp Tests/ABI/failing_allocations.cpp "${backend_tests[@]}"
compile models Tests/GGML/models.cpp
status=0
refusals || status=1
for test in nodes host memory models; do
  # A ggml whose backends are files looks for them where it is run.
  (cd "$bin" && "$out/$test" "$backend") || status=1
done
some='kv=113,nb=(1|75),mask=0|hsk=576.*nb=(3|75)|hsk=(320|72).*mask=0.*kv=512,nb=32'
[ "${1:-}" != all ] || some=.
operators "$some" || status=1
server || status=1
exit $status
