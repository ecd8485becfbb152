#!/bin/bash
# The executable model of a GPU against the definitions of its instructions, then the CUDA
# kernels on it.
set -u
cd "$(dirname "$0")" || exit 1

status=0
make -s || status=1
make -s -j"$(nproc)" -C kernels || exit 1
for test in conversions attention tiles promises convert merge cache gather projection upload; do
  ../../.build/software-gpu/test_$test || status=1
done
exit $status
