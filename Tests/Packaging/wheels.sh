#!/bin/bash
# Makes the release wheels, looks at them, installs them and runs what a user would run first,
# by every interpreter that is found here and by Arm's.
set -euo pipefail
cd "$(dirname "$0")/../.."

unset PYTHONPATH PYTHONHOME
mkdir -p .build-python
if ! sdk=$(Sources/Packaging/arm64-sdk.sh test 2> .build-python/sdk.log); then
  cat .build-python/sdk.log
  exit 77
fi
Sources/Packaging/wheels.sh
pythons=()
for version in 3.10 3.11 3.12 3.13 3.14; do
  if python=$(Sources/Packaging/find-python.sh $version); then pythons+=("$python"); fi
done
.build/wheels-work/tools/bin/python Tests/Packaging/wheels.py .build/wheels "$sdk" "${pythons[@]}"
