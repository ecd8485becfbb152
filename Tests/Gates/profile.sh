#!/bin/bash
# A profile of the library as it is installed names its kernels, and so does a debugger. Run in
# the project's folder.
#
#   profile.sh STAGE      where the library is installed
set -euo pipefail
stage=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

command -v perf > /dev/null || { echo "needs perf, of the package linux-perf"; exit 77; }
gcc -std=c99 -O2 -I"$stage/include" Tests/Gates/profile.c -L"$stage/lib" -lmlaprefill -Wl,-rpath,"$stage/lib" -o "$work/profile"
# Of this library alone, not what perf kept of another. By a clock, which every machine has: not all let programs count cycles.
perf --buildid-dir "$work/known" record -q -e cpu-clock -F 2000 -o "$work/data" "$work/profile" 2> "$work/log" ||
  { echo "perf cannot record here: $(tail -n 1 "$work/log")"; exit 77; }
perf --buildid-dir "$work/known" report -i "$work/data" --stdio --quiet --sort dso,symbol 2> /dev/null > "$work/report"

share=$(awk '$2 ~ /^libmlaprefill/ { all += $1; if (/MLAKernels/) named += $1 } END { printf "%d %d", named, all }' "$work/report")
if [ "${share% *}" -gt 10 ] && [ $((10 * ${share% *})) -ge $((9 * ${share#* })) ]; then
  echo "ok perf names the kernels: ${share% *} of the library's ${share#* } percent"
else
  echo "not ok perf names the kernels: ${share% *} of the library's ${share#* } percent"
  head -20 "$work/report"
  exit 1
fi
