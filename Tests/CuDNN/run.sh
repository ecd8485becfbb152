#!/bin/bash
# cuDNN's plans, made by cuDNN itself for GPUs that the host does not have: that they build,
# are serialised and loaded, as a table.
#
#   Tests/CuDNN/run.sh [VERSION]     of cuDNN, default 9.25.1.1
#
# Its libraries, 1.5 GB, come from PyPI once. The Swift tests must be in .build-tests.
set -euo pipefail
cd "$(dirname "$0")/../.."

version=${1:-9.25.1.1}
environment=$PWD/.build-cudnn/$version
libraries=$environment/nvidia
if [ ! -e "$environment/complete" ]; then
  rm -rf "$environment"
  mkdir -p "$environment"
  # cuBLASLt is for versions that end the process without.
  python3 -m pip install -q --no-deps --target "$environment" "nvidia-cudnn-cu12==$version" \
    nvidia-cublas-cu12 nvidia-cuda-nvrtc-cu12
  touch "$environment/complete"
fi
cc -shared -fPIC -Wl,-soname,libcuda.so.1 Tests/CuDNN/libcuda.c -o "$environment/libcuda.so.1"

unset MLA_CUDNN_LIBRARY
path=$libraries/cudnn/lib:$environment:$libraries/cuda_nvrtc/lib
tests=.build-tests/release/MLAPrefillPackageTests.xctest
status=0
MLA_TEST_CUDNN=libcudnn.so.9 MLA_TEST_CUDNN_DEVICES=$PWD/Tests/CuDNN/devices \
  LD_LIBRARY_PATH=$path:$libraries/cublas/lib "$tests" MLACoreTests.CuDNNPlanTests || status=1
# Without cuBLASLt a version that wants it is refused, and ends nothing.
MLA_TEST_CUDNN=libcudnn.so.9 MLA_TEST_CUDNN_WITHOUT=cublasLt LD_LIBRARY_PATH=$path \
  "$tests" MLACoreTests.CuDNNPlanTests/testWithoutCuBLASLt || status=1
exit $status
