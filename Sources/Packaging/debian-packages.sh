#!/bin/bash
# Installs the Debian packages that the given purposes need and the machine
# lacks; does nothing, and needs no root, where they are all there.
#
#   debian-packages.sh demo|test|docs|wheels|vllm|amx|mpi|package|test-package|cores ...
set -euo pipefail

missing=()

# need PACKAGE CHECK...: wants PACKAGE unless CHECK succeeds.
need() {
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}

have_library() { PATH=$PATH:/sbin:/usr/sbin ldconfig -p | grep -q "$1"; }

for purpose in "$@"; do
  case $purpose in
    demo) need libopenblas-dev have_library libopenblas.so.0 ;;
    wheels)
      need g++ command -v g++
      need cmake command -v cmake
      need python3-venv python3 -c 'import ensurepip'
      ;;
    test)
      need g++ command -v g++
      need binutils command -v objdump
      need cmake command -v cmake
      need pkg-config command -v pkg-config
      need libopenblas-dev pkg-config --exists openblas
      if [ "$(uname -m)" = x86_64 ]; then
        # Other processors, emulated.
        need qemu-user command -v qemu-x86_64
        need libc6-dev-arm64-cross test -e /usr/aarch64-linux-gnu/include/string.h
        need gcc-aarch64-linux-gnu command -v aarch64-linux-gnu-gcc
      fi
      need python3 command -v python3
      need python3-venv python3 -c 'import ensurepip'
      need python3-dev python3 -c \
        'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")'
      # A python3 that is not Debian's cannot see Debian's numpy; the suite then
      # runs /usr/bin/python3 for what needs it.
      python3 -c 'import numpy' 2>/dev/null || need python3-numpy /usr/bin/python3 -c 'import numpy'
      ;;
    docs)
      need doxygen command -v doxygen
      need python3-venv python3 -c 'import ensurepip'
      ;;
    amx)
      need xorriso command -v xorriso
      need cpio command -v cpio
      need grub-common command -v grub-mkimage
      need grub-pc-bin test -e /usr/lib/grub/i386-pc/biosdisk.mod
      need busybox-static dpkg --status busybox-static
      ;;
    mpi)
      need libopenmpi-dev test -e /usr/include/x86_64-linux-gnu/mpi
      need openmpi-bin command -v mpirun
      need iproute2 command -v ip
      ;;
    package) need dpkg-dev command -v dpkg-shlibdeps ;;
    # Installs what that makes, and looks at it as it runs.
    test-package)
      need dpkg-dev command -v dpkg-shlibdeps
      need lintian command -v lintian
      need debootstrap command -v debootstrap
      need linux-perf command -v perf
      ;;
    # Models of Arm's cores by name.
    cores) need llvm-19 command -v llvm-mca-19 ;;
    vllm) need libnuma1 have_library libnuma.so.1 ;;
    *) echo "unknown purpose: $purpose" >&2; exit 2 ;;
  esac
done

[ ${#missing[@]} -gt 0 ] || exit 0
echo "installing Debian packages: ${missing[*]}"

as_root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || {
    echo "not root and no sudo here; please install: ${missing[*]}" >&2
    exit 1
  }
  as_root=(sudo)
fi
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
