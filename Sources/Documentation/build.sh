#!/bin/bash
# Builds the documentation site into .build/docs; what is wrong in it is an error. The library
# is not needed: its header and the Python package's sources are read. Doxygen is Debian's,
# what else it takes is fetched once (about 40 MB).
set -euo pipefail
cd "$(dirname "$0")/../.."

tools=$PWD/.build/docs-tools
requirements=Sources/Documentation/requirements.txt
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_QUIET=1 NO_MKDOCS_2_WARNING=1
# What the hooks are compiled to would lie beside them.
export PYTHONDONTWRITEBYTECODE=1
unset PYTHONPATH PYTHONHOME

if ! cmp -s "$requirements" "$tools/installed"; then
  "${PYTHON:-python3}" -m venv --clear "$tools/venv"
  "$tools/venv/bin/pip" install -r "$requirements"
  cp "$requirements" "$tools/installed"
fi
rm -rf "$tools/doxygen"
doxygen Sources/Documentation/Doxyfile
"$tools/venv/bin/mkdocs" build --strict --config-file Sources/Documentation/mkdocs.yml
echo "the site is .build/docs/index.html"
