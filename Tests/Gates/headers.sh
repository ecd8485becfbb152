#!/bin/bash
# The headers and examples compile without a warning as C99, C11 and C++17, with
# gcc and with clang. Run in the project's folder.
set -u
flags="-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror -Iinclude -fsyntax-only"
failed=0

compile() {
  local compiler=$1 standard=$2 file=$3
  # shellcheck disable=SC2086
  if "$compiler" -x "$4" -std="$standard" $flags "$file"; then
    echo "ok $compiler -std=$standard $file"
  else
    echo "not ok $compiler -std=$standard $file"
    failed=1
  fi
}

for compiler in gcc clang; do
  for standard in c99 c11; do
    for file in include/mla_prefill.h examples/c/*.c; do
      compile $compiler $standard "$file" c
    done
  done
done
for compiler in g++ clang++; do
  for file in include/mla_prefill.h include/mla_prefill.hpp examples/cpp/*.cpp examples/cpp/engine/*.cpp; do
    compile $compiler c++17 "$file" c++
  done
done
exit $failed
