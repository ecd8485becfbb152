#!/bin/bash
# The kernels, compiled for 64-bit Arm and run under qemu-aarch64.
#
# There is no Swift for Arm Linux here, but the toolchain has Swift's embedded
# standard library for the bare architecture, and kernels need no more.
set -euo pipefail
cd "$(dirname "$0")/../.."

root=$PWD
out=$root/.build/arm64
mkdir -p "$out"
cat > "$out/module.modulemap" <<MODULES
module MLAKernelABI { header "$root/Sources/MLAKernelABI/include/mla_kernel_abi.h" export * }
module MLAShims { header "$root/Sources/MLAShims/include/mla_shims_vector.h" export * }
MODULES
# kernels FAMILY FLAGS...: the object of a kernel module. The flags are those of Package.swift.
kernels() {
  local family=$1 flag flags=()
  for flag in "${@:2}"; do flags+=(-Xcc "$flag"); done
  find -L "Sources/MLAKernels$family" "Tests/Arm64/Entries/$family.swift" -name '*.swift' > "$out/sources"
  swiftc -target aarch64-none-none-elf -enable-experimental-feature Embedded -wmo -parse-as-library \
    -Ounchecked -Xllvm -sil-disable-pass=loop-invariant-code-motion -module-name "MLAKernels$family" \
    -Xcc "-fmodule-map-file=$out/module.modulemap" -Xcc -isystem -Xcc /usr/aarch64-linux-gnu/include \
    "${flags[@]}" -c "@$out/sources" -o "$out/$family.o"
}
kernels Portable
kernels NEON -DMLA_NEON
kernels NEONBF16 -DMLA_NEON -march=armv8-a+bf16
# Swift's own clang and linker; the C library and its headers are the cross compiler's.
arm_clang() {
  "$(dirname "$(readlink -f "$(command -v swiftc)")")/clang" --target=aarch64-linux-gnu \
    -std=gnu11 -O2 -Werror "$@"
}
# program NAME SOURCE...
program() {
  arm_clang -Wall -Wextra -fuse-ld=lld -static -ISources/MLAKernelABI/include "${@:2}" \
    "$out"/{Portable,NEON,NEONBF16}.o -lm -o "$out/$1"
}
program kernels Tests/Arm64/kernels.c Tests/Arm64/{rows,selected,index}.c
program work Tests/Arm64/work.c
for source in Sources/MLAShims/*.c; do
  arm_clang -ISources/MLAShims/include -c "$source" -o "$out/$(basename "$source").o"
done

# Vectors of four, or the kernels would be slow beyond use.
vectors=$(aarch64-linux-gnu-objdump -d "$out/Portable.o" | grep -cE 'fm(la|ul)[[:space:]]+v[0-9]+\.4s')
if [ "$vectors" -gt 100 ]; then echo "ok NEON vectors: $vectors"; else echo "not ok NEON vectors: $vectors"; fi
status=0
python3 Tests/Arm64/inner_loops.py "$out"/{NEON,NEONBF16}.o || status=1
if qemu-aarch64 -h | grep -q -e -plugin; then
  gcc -O2 -Wall -Wextra -Werror -fPIC -shared Tests/Arm64/instruction_counts.c -o "$out/instruction_counts.so"
  python3 Tests/Arm64/calls.py "$out/work" "$out/instruction_counts.so" || status=1
else
  echo "calls are not modelled: this qemu-aarch64 takes no plugins"
fi
# Without bf16 instructions, and with them.
for cpu in neoverse-n1 max; do qemu-aarch64 -cpu "$cpu" "$out/kernels" || status=1; done
exit $status
