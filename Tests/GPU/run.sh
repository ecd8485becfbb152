#!/bin/bash
# The machine's own tests, and the library's on it.
#
#   Tests/GPU/run.sh              all programs: of the machine, of the C ABI
#   Tests/GPU/run.sh PROGRAM...
#   Tests/GPU/run.sh python [PYTEST-ARGUMENT...]   of the Python package, in the environment
#                                 that Tests/Python/run.sh has made, and h200.sh in short form
#
# The library must be in .build/stage, or where STAGE says.
set -u
cd "$(dirname "$0")/../.." || exit 1

stage=${STAGE:-$PWD/.build/stage}
out=$PWD/.build/gpu
programs=${*:-$(make -s -C Tests/GPU programs)}
case $programs in
  python*) targets=machine ;;
  *) targets=$(printf "$out/%s " $programs) ;;
esac
# shellcheck disable=SC2086
make -s -j"$(nproc)" -C Tests/GPU STAGE="$stage" OUT="$out" $targets || exit 1

# Nothing of a GPU that the host may have, and none of its user's settings.
unset CUDA_VISIBLE_DEVICES MLA_NVRTC_LIBRARY MLA_PREFILL_BACKEND "${!MLA_TEST_GPU@}"
export LD_LIBRARY_PATH=$out/machine MLA_CACHE_DIR=$out/cache
# What does not say so tests the library's own kernels.
export MLA_CUDNN_LIBRARY=off
rm -rf "$out/cache"

if [ "${1:-}" = python ]; then
  python=${PYTHON:-$PWD/.build-python/numpy/bin/python}
  for cudnn in off libcudnn.so.9; do
    echo "with MLA_CUDNN_LIBRARY=$cudnn:"
    MLA_CUDNN_LIBRARY=$cudnn MLA_TEST_GPUS=90,80,100 "$python" -m pytest -v -p no:cacheprovider \
      --rootdir=Tests/GPU/python "${@:2}" Tests/GPU/python || exit 1
  done
  # What is for a real one, so that it works when there is one.
  printf "software gpu 90" > "$out/sm_90a.image"
  MLA_TILES_IMAGE=$out/sm_90a.image PYTHON=$python exec Tests/GPU/h200.sh --short "$stage/lib/libmlaprefill.so.1"
fi

status=0
for program in $programs; do
  case $program in
    # With a driver that cannot be loaded, and with one from before CUDA 12.
    no_driver) for kind in none old; do LD_LIBRARY_PATH=$out/$kind "$out/$program" $kind || status=1; done ;;
    # With a cuDNN that cannot be loaded.
    no_cudnn) LD_LIBRARY_PATH=$out/cudnnless:$out/machine "$out/$program" || status=1 ;;
    # By the library's own kernels alone, and by cuDNN where it serves.
    attention | golden | graphs | layer_refusals | layers | names | refusals | streams)
      "$out/$program" || status=1
      echo "with cuDNN:"
      MLA_CUDNN_LIBRARY=libcudnn.so.9 "$out/$program" || status=1 ;;
    *) "$out/$program" || status=1 ;;
  esac
done
exit $status
