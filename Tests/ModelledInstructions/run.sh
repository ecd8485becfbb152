#!/bin/bash
# A kernel table on any CPU with AVX2, on the model of the instructions that it lacks.
# Portable and AVX2 are in this build as they are in the product; of the others it does not
# show the compiler's code for the real target, and no speed.
#
#   run.sh TABLE     after build.sh and the ABI's programs, which are the product's
set -u
cd "$(dirname "$0")/../.." || exit 1
. Tests/tables.sh

if ! grep -qw avx2 /proc/cpuinfo; then
  echo "ok nothing is modelled: this CPU lacks AVX2, of which the model is made"
  exit 0
fi
export LD_LIBRARY_PATH=$PWD/.build-tables/stage/lib
test_table "$1" .build-tables
