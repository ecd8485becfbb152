#!/bin/bash
# The library on a real GPU, in eight minutes: versions, correctness against float64 at the
# sizes of engines, compute-sanitizer on small ones, speed beside torch's attention.
#
#   Tests/GPU/h200.sh [LIBRARY]           libmlaprefill.so with machine code in it (make cubins
#                                         before it was built); default: .build/stage's
#   Tests/GPU/h200.sh --short [LIBRARY]   the same on few tokens: for the machine without a GPU
#
# The kernels of sm_90a, which the library does not choose yet, are checked and measured beside
# its own where .build/nvrtc/sm_90a.cubin is, of `make cubins`, or MLA_TILES_IMAGE names another.
#
# By the library's own kernels first, then, where there is one, by the cuDNN that
# MLA_CUDNN_LIBRARY names, or torch has, or the linker finds; by none where that is off. NVIDIA's own figures for it on an
# H200 are 520 to 640 TFLOP/s (causal, 192/128, bf16).
#
# Needs a Python with numpy (PYTHON=, default python3) and the driver; torch and
# compute-sanitizer are used where they are. Builds and fetches nothing. Results go to the
# folder OUT, if it is set. The table comes last.
set -u
cd "$(dirname "$0")/../.." || exit 1

mode=real
if [ "${1:-}" = --short ]; then
  mode=short
  shift
fi
export MLA_PREFILL_LIBRARY=${1:-$PWD/.build/stage/lib/libmlaprefill.so.1} PYTHONDONTWRITEBYTECODE=1
python=${PYTHON:-python3}
out=${OUT:-$(mktemp -d)}
began=$SECONDS status=0

# The file of a cuDNN, if there is any.
cudnn=${MLA_CUDNN_LIBRARY:-$("$python" - 2> /dev/null << 'END'
import ctypes, glob, os, sys
installed = [file for path in sys.path for file in glob.glob(os.path.join(path, "nvidia/cudnn/lib/libcudnn.so.9"))]
found = installed[0] if installed else "libcudnn.so.9"
ctypes.CDLL(found)
print(found)
END
)}
export MLA_CUDNN_LIBRARY=off

# within SECONDS COMMAND...: ends what takes longer, and tells how it ended where it failed.
within() {
  timeout "$@"
  local code=$?
  [ $code = 0 ] || { status=1; echo "not ok ${*:2}: ends with $code"; }
}

echo "--- versions"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2> /dev/null || echo "no nvidia-smi"
"$python" -c 'import sys, numpy; print("Python", sys.version.split()[0], "numpy", numpy.__version__)'
"$python" -c 'import torch; print("torch", torch.__version__, "cuDNN", torch.backends.cudnn.version())' 2> /dev/null ||
  echo "no torch"
ls -lL "$MLA_PREFILL_LIBRARY" || exit 1

echo "--- correctness"
within 200 "$python" Tests/GPU/h200/check.py $mode

echo "--- compute-sanitizer"
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2> /dev/null | tail -1)
if [ -n "$sanitizer" ]; then
  for tool in memcheck racecheck synccheck initcheck; do
    within 60 "$sanitizer" --tool $tool --error-exitcode 9 "$python" Tests/GPU/h200/check.py one \
      > "$out/$tool.log" 2>&1
    grep -h "ERROR SUMMARY\|RACECHECK SUMMARY\|^not ok" "$out/$tool.log" | sed "s/^/$tool: /"
  done
else
  echo "there is none"
fi

echo "--- speed, after $((SECONDS - began)) s"
within 150 "$python" Tests/GPU/h200/speed.py $mode "$out/speed.json"

echo "--- with cuDNN, after $((SECONDS - began)) s"
if [ "${cudnn:-off}" != off ]; then
  echo "$cudnn"
  export MLA_CUDNN_LIBRARY=$cudnn
  within 60 "$python" Tests/GPU/h200/check.py $mode
  within 60 "$python" Tests/GPU/h200/speed.py $mode "$out/speed-cudnn.json"
else
  echo "there is none"
fi
echo "$([ $status = 0 ] && echo ok || echo not ok) h200: $((SECONDS - began)) s"
exit $status
