#!/bin/bash
# What `make package` makes, installed in a Debian 12 without Swift.
#
#   packages.sh ARCH           makes the packages of ARCH, x86_64 or aarch64, looks at them, installs them
#   packages.sh bare, debian, tarball   in such a root: what is checked there
set -euo pipefail
cd "$(dirname "$0")/../.."

. Tests/Packaging/check.sh

# No compiler, no Swift: as a system that runs programs.
bare() {
  check "the package installs in a bare Debian" dpkg -i /packages/libmlaprefill1_*_"$architecture.deb"
  check "the linker finds the library" sh -c 'ldconfig -p | grep libmlaprefill.so.1'
  check "the library has what it needs" sh -c '! ldd /usr/lib/*/libmlaprefill.so.1 | grep "not found"'
  check "its licences are there" grep -q Swift /usr/share/doc/libmlaprefill1/copyright
  check "the package goes again" dpkg -P libmlaprefill1
  check "and leaves nothing" sh -c '! find /usr /etc -name "*mlaprefill*" -o -name "mla_prefill*" | grep .'
}

# sample PREFIX: README.md's in C.
sample() {
  export PKG_CONFIG_PATH=$1/lib/pkgconfig LD_LIBRARY_PATH=$1/lib
  awk '/^```/ {c = $0 == "```c"; next} c' README.md > /tmp/prefill.c
  eval "cc -std=c99 -Wall -Wextra -Werror /tmp/prefill.c $(pkg-config --cflags --libs mla_prefill) -o /tmp/prefill"
  /tmp/prefill | grep "lse of the third token 1.0986"
}

# examples PREFIX
examples() {
  check "README's sample in C compiles and runs" sample "$1"
  Tests/Gates/install.sh "$1" || failed=1
}

# As a system that programs are made on.
debian() {
  check "the packages install" dpkg -i /packages/*_"$architecture.deb"
  examples /usr
}

tarball() {
  mkdir /opt/first
  tar -xzf /packages/libmlaprefill-*-linux-"$(uname -m).tar.gz" -C /opt/first --strip-components 1
  mv /opt/first "/opt/moved folder"
  examples "/opt/moved folder"
}

# Nobody's address is given, and the packages were never Debian's.
lint() {
  ! lintian --allow-root --fail-on error,warning --suppress-tags \
    malformed-contact,bogus-mail-host-in-debian-changelog,initial-upload-closes-no-bugs "$@" | grep .
}

all() {
  local kind
  case $1 in x86_64) architecture=amd64 ;; aarch64) architecture=arm64 ;; esac
  command -v lintian > /dev/null || { echo "needs lintian"; exit 77; }
  Tests/Packaging/debian_root.sh make $architecture
  make -s package ARCH="$1"
  check "lintian finds nothing" lint .build/packages/*_$architecture.deb
  for kind in bare:bare debian:compilers tarball:compilers; do
    Tests/Packaging/debian_root.sh run $architecture ${kind#*:} /project/Tests/Packaging/packages.sh ${kind%:*} || failed=1
  done
}

failed=0
architecture=$(dpkg --print-architecture)
case $1 in
  bare | debian | tarball) $1 ;;
  *) all "$1" ;;
esac
exit $failed
