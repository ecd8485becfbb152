#!/bin/bash
# Tests/KernelTests on 64-bit Arm, of the kernels as the library has them, under an emulator.
#
#   kernel_tests.sh build              the library's modules, and the tests
#   kernel_tests.sh CPU TABLE [TEST]   those of a table, or one, on a CPU of the emulator's
#
# There is a Swift for Arm, but no XCTest and no Foundation that this compiler can import:
# StandIns have what these tests use of them.
set -euo pipefail
cd "$(dirname "$0")/../.."

root=$PWD
out=$root/.build-aarch64
release=$out/release
tests=$out/kernel-tests

mkdir -p "$out"
if ! sdk=$(Sources/Packaging/arm64-sdk.sh test 2> "$out/sdk.log"); then
  tail -n 1 "$out/sdk.log"
  exit 77
fi

# module NAME SOURCE...: into the folder of the tests.
module() { compile -parse-as-library -emit-module -module-name "$1" -c "${@:2}" -o "$1.o"; }

compile() { swiftc "${swift[@]}" -wmo -O -suppress-warnings "${imports[@]}" "$@"; }

# A call of each test, for classes are not looked for at run time here.
calls() {
  echo 'import XCTest'
  echo 'setvbuf(stdout, nil, _IOLBF, 0)'
  echo 'let only = CommandLine.arguments.dropFirst().first ?? ""'
  awk '/^final class .*: XCTestCase/ {class = $3; sub(/:$/, "", class)}
    match($0, /^  func test[A-Za-z0-9_]*\(\)/) {
      test = substr($0, RSTART + 7, RLENGTH - 9)
      printf "if \"%s/%s\".contains(only) || only.isEmpty { run(\"%s/%s\") { %s().%s() } }\n", class, test, class, test, class, test
    }' "$root"/Tests/KernelTests/*.swift
  echo 'exit(failures == 0 ? 0 : 1)'
}

build() {
  local each
  Sources/Packaging/arm64-build.sh -c release --product mlaprefill
  mkdir -p "$tests"
  cd "$tests"
  swift=(-target aarch64-unknown-linux-gnu -use-ld=lld -static-stdlib
    -sdk "$sdk/sysroot" -resource-dir "$sdk/swift")
  imports=(-swift-version 5 -I . -I "$release/Modules" -module-cache-path "$tests/cache"
    -Xcc "-fmodule-map-file=$root/include/module.modulemap")
  for each in MLAKernelABI MLAShims MLACUDAKernels; do
    imports+=(-Xcc "-fmodule-map-file=$release/$each.build/module.modulemap" -I "$root/Sources/$each/include")
  done
  calls > main.swift
  module Foundation "$root/Tests/Arm64/StandIns/Foundation.swift"
  module XCTest "$root/Tests/Arm64/StandIns/XCTest.swift"
  # Reads files, which no kernel does.
  module MLATestSupport $(find "$root/Tests/Support" -name '*.swift' ! -name Safetensors.swift)
  compile -module-name KernelTests -c "$root"/Tests/KernelTests/*.swift main.swift -o KernelTests.o
  swiftc "${swift[@]}" ./*.o $(find "$release"/{MLACore,MLAShims,MLAKernel*,MLACUDAKernels}.build -name '*.o') \
    -lstdc++ -lm -o kernel-tests
}

case $1 in
  build) build ;;
  *)
    MLA_MAX_ISA=$2 MLA_TEST_TABLE=$2 "$sdk/qemu-aarch64" -cpu "$1" -L "$sdk/sysroot" \
      "$tests/kernel-tests" "${@:3}"
    ;;
esac
