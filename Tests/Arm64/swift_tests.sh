#!/bin/bash
# Tests/KernelTests and Tests/MLACoreTests on 64-bit Arm, of the library's modules as a
# build for tests has them, under an emulator.
#
#   swift_tests.sh build                      the library's modules, and the tests
#   swift_tests.sh CPU TABLE MODULE [TEST]    those of a module, or those whose names have TEST
#                                             in them, on a CPU of the emulator's, on a table
#
# There is a Swift for Arm, but no XCTest and no Foundation that this compiler can import:
# StandIns have what these tests use of them.
set -euo pipefail
cd "$(dirname "$0")/../.."

root=$PWD
out=$root/.build-aarch64-tests
release=$out/release
tests=$out/tests

mkdir -p "$out"
if ! sdk=$(Sources/Packaging/arm64-sdk.sh test 2> "$out/sdk.log"); then
  cat "$out/sdk.log"
  exit 77
fi

# module NAME SOURCE...: into the folder of the tests.
module() { compile -parse-as-library -emit-module -module-name "$1" -c "${@:2}" -o "$1.o"; }

compile() { swiftc "${swift[@]}" -wmo -O -suppress-warnings "${imports[@]}" "$@"; }

# calls SOURCE...: a call of each test, for classes are not looked for at run time here.
calls() {
  echo 'import XCTest'
  echo 'setvbuf(stdout, nil, _IOLBF, 0)'
  echo 'let only = CommandLine.arguments.dropFirst().first ?? ""'
  awk '/^#if arch\(x86_64\)/ { elsewhere = 1 }
    /^#(else|elseif|endif)/ { elsewhere = 0 }
    elsewhere { next }
    /^ *final class .*: XCTestCase/ {class = $3; sub(/:$/, "", class)}
    match($0, /^ +func test[A-Za-z0-9_]*\(\)/) {
      test = substr($0, RSTART, RLENGTH - 2)
      sub(/^ +func /, "", test)
      name = "\"" class "/" test "\""
      print "if " name ".contains(only) || only.isEmpty { run(" name ", " class ".self, " class "." test ") }"
    }' "$@"
  echo 'exit(failures == 0 ? 0 : 1)'
}

# sources FOLDER EXCEPT...: its files, without those that need more of Foundation: files.
sources() {
  local except=() name
  for name in "${@:2}"; do except+=(! -name "$name"); done
  find "$root/$1" -name '*.swift' "${except[@]}" | sort
}

build() {
  local each files
  MLA_TESTABLE=1 Sources/Packaging/arm64-build.sh -c release --product mlaprefill --scratch-path "$out"
  mkdir -p "$tests"
  cd "$tests"
  swift=(-target aarch64-unknown-linux-gnu -use-ld=lld -static-stdlib
    -sdk "$sdk/sysroot" -resource-dir "$sdk/swift")
  imports=(-swift-version 5 -I . -I "$release/Modules" -module-cache-path "$tests/cache"
    -Xcc "-fmodule-map-file=$root/include/module.modulemap")
  for each in MLAKernelABI MLAShims MLACUDAKernels; do
    imports+=(-Xcc "-fmodule-map-file=$release/$each.build/module.modulemap" -I "$root/Sources/$each/include")
  done
  module Foundation "$root/Tests/Arm64/StandIns/Foundation.swift"
  module XCTest "$root/Tests/Arm64/StandIns/XCTest.swift"
  # shellcheck disable=SC2046
  module MLATestSupport $(sources Tests/Support Safetensors.swift)
  for each in KernelTests MLACoreTests; do
    mkdir -p "$each"
    files=$(sources "Tests/$each" CgroupLimitsTests.swift LayerTests.swift 'CUDA*.swift' 'CuDNN*.swift' CodeCacheTests.swift)
    # shellcheck disable=SC2086
    calls $files > "$each/main.swift"
    # shellcheck disable=SC2086
    compile -module-name "$each" -c $files "$each/main.swift" -o "$each/$each.o"
    # shellcheck disable=SC2046
    swiftc "${swift[@]}" {Foundation,XCTest,MLATestSupport}.o "$each/$each.o" \
      $(find "$release"/{MLACore,MLAShims,MLAKernel*,MLACUDAKernels}.build -name '*.o') -lstdc++ -lm -o "$each/tests"
  done
}

case $1 in
  build) build ;;
  *)
    MLA_MAX_ISA=$2 MLA_TEST_TABLE=$2 "$sdk/qemu-aarch64" -cpu "$1" -L "$sdk/sysroot" \
      "$tests/$3/tests" "${@:4}"
    ;;
esac
