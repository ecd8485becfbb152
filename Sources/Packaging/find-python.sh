#!/bin/bash
# Prints an interpreter with its headers, of the first of these versions that there is: in the
# path or among pyenv's. Given a path, that, if it is one.
#
#   find-python.sh VERSION|PATH...
set -uo pipefail

version_of() {
  "$1" -c 'import os, sys, sysconfig
os.stat(os.path.join(sysconfig.get_path("include"), "Python.h"))
print("3.%d" % sys.version_info[1])' 2> /dev/null
}

for wanted in "$@"; do
  case $wanted in
    */*) [ -z "$(version_of "$wanted")" ] || { echo "$wanted"; exit; } ;;
    *)
      for python in "python$wanted" python3 /usr/bin/python3 "${PYENV_ROOT:-$HOME/.pyenv}/versions/$wanted".*/bin/python3; do
        [ "$(version_of "$python")" = "$wanted" ] || continue
        command -v "$python"
        exit
      done
      ;;
  esac
done
echo "no Python $1 with headers here" >&2
exit 1
