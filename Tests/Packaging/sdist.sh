#!/bin/bash
# Makes the Python package's source distribution and looks at it.
#
#   Tests/Packaging/sdist.sh          what is in it
#   Tests/Packaging/sdist.sh wheel    and at the wheel that `python -m build python` makes of it,
#                                     in a folder of its own: a whole build of the library
set -euo pipefail
cd "$(dirname "$0")/../.."

out=$PWD/.build-python
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_QUIET=1
unset PYTHONPATH PYTHONHOME

[ -x "$out/packaging/bin/pip" ] || "${PYTHON:-python3}" -m venv "$out/packaging"
"$out/packaging/bin/pip" install build "nanobind>=3"
rm -rf "$out/dist"
if [ "${1:-}" = wheel ]; then form=(); else form=(--sdist); fi
"$out/packaging/bin/python" -m build "${form[@]}" --outdir "$out/dist" python
"$out/packaging/bin/python" Tests/Packaging/source_distribution.py "$out/dist" "$@"
