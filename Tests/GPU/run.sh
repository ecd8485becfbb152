#!/bin/bash
# The machine's own tests, and the library's on it: C ABI, C++, Python.
#
#   Tests/GPU/run.sh [TEST...]     all, or programs of these names
#
# Run by Tests/run.sh, which has built the library into .build/stage.
set -u
cd "$(dirname "$0")/../.." || exit 1

stage=${STAGE:-$PWD/.build/stage}
out=$PWD/.build/gpu
make -s -j"$(nproc)" -C Tests/GPU STAGE="$stage" OUT="$out" || exit 1

# Nothing of a GPU that the host may have, and none of its user's settings.
unset CUDA_VISIBLE_DEVICES MLA_NVRTC_LIBRARY MLA_PREFILL_BACKEND "${!MLA_TEST_GPU@}"
export LD_LIBRARY_PATH=$out/machine MLA_CACHE_DIR=$out/cache
rm -rf "$out/cache"

status=0
for program in ${*:-$(make -s -C Tests/GPU programs)}; do
  "$out/$program" || status=1
done
exit $status
