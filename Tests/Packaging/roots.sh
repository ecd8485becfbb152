#!/bin/bash
# The release wheels of .build/wheels where nothing is but a Debian without a compiler, for
# x86-64 and, emulated, for 64-bit Arm:
#
#   bookworm   the wheel for its Python, 3.11, is installed by its pip and run
#   trixie     the same of the stable ABI's, by 3.13
#   bullseye   has the oldest glibc that Debian keeps, 2.31, and no Python that the wheels are
#              for: the wheel's library runs a recorded step by way of ctypes, and the loader
#              finds all that its extension module needs of the C and C++ libraries
#
# The roots are unpacked packages, kept in .build/roots; made by root, with debootstrap.
set -euo pipefail
cd "$(dirname "$0")/../.."

wheels=$PWD/.build/wheels
failed=0

skip() {
  echo "$1"
  exit 77
}
[ "$(id -u)" = 0 ] || skip "needs root, for chroot"
command -v debootstrap > /dev/null || skip "needs debootstrap"
if ! sdk=$(Sources/Packaging/arm64-sdk.sh test 2> .build/roots.log); then skip "$(cat .build/roots.log)"; fi
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Label: Debian' | sort -u | head -n 1)}

# make_root RELEASE ARCHITECTURE PACKAGE,...: prints its folder.
make_root() {
  local root=$PWD/.build/roots/$1-$2 package
  if [ ! -e "$root/made" ]; then
    rm -rf "$root"
    mkdir -p "$root"
    debootstrap --foreign --arch="$2" --variant=minbase --include="$3" "$1" "$root" "$mirror" >&2
    # What debootstrap leaves to a second stage, which needs the system to run.
    for package in "$root"/var/cache/apt/archives/*.deb; do dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C "$root"; done
    rm "$root"/var/cache/apt/archives/*.deb
    touch "$root/made"
  fi
  cp "$sdk/qemu-aarch64" "$root/qemu-aarch64"
  mkdir -p "$root/tried"
  rm -rf "$root"/tried/*
  echo "$root"
}

# in_root ROOT COMMAND...
in_root() {
  local emulator=() blas=()
  [[ $1 != *-arm64 ]] || emulator=(/qemu-aarch64 -cpu neoverse-v1)
  # numpy's: Debian's links to them are made by a second stage.
  blas=("$1"/usr/lib/*-linux-gnu/{blas,lapack})
  env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/nowhere PIP_ROOT_USER_ACTION=ignore \
    LD_LIBRARY_PATH="$(IFS=:; echo "${blas[*]#"$1"}")" \
    MLA_PREFILL_LIBRARY=/tried/mla_prefill/libmlaprefill.so.1 \
    chroot "$1" "${emulator[@]}" "${@:2}"
}

# try NAME COMMAND...
try() {
  local said
  if said=$("${@:2}" 2>&1); then echo "ok $1"; else
    echo "$said"
    echo "not ok $1"
    failed=1
  fi
}

# installed RELEASE ARCHITECTURE TAG: where there is no compiler, and no Swift.
installed() {
  local root name="$1 $2"
  root=$(make_root "$1" "$2" python3,python3-pip)
  cp "$wheels"/*.whl "$root/tried"
  # A second stage makes it; a later pip reads it whatever it does.
  cat "$root"/usr/share/ca-certificates/*/*.crt > "$root/etc/ssl/certs/ca-certificates.crt"
  try "$name has no compiler" test ! -e "$root/usr/bin/gcc" -a ! -e "$root/usr/bin/cc" -a ! -e "$root/usr/bin/swift"
  try "$name: pip install --no-index" in_root "$root" /usr/bin/python3 -m pip install --no-index --find-links /tried \
    --break-system-packages --force-reinstall mla-prefill
  try "$name: is the wheel $3" grep -q "^Tag: $3-" "$root"/usr/local/lib/python3*/dist-packages/mla_prefill-*.dist-info/WHEEL
  try "$name: selftest" in_root "$root" /usr/bin/python3 -m mla_prefill selftest
  try "$name: doctor" in_root "$root" /usr/bin/python3 -m mla_prefill doctor
}

# bullseye ARCHITECTURE MACHINE LOADER
bullseye() {
  local root name="bullseye $1" found any=("$wheels"/*_"$2".whl)
  root=$(make_root bullseye "$1" python3,python3-numpy)
  python3 -m zipfile -e "${any[0]}" "$root/tried"
  cp examples/ctypes/prefill.py Tests/Data/dsv2_chunked.safetensors "$root/tried"
  try "$name: glibc is 2.31" in_root "$root" /usr/bin/python3 -c \
    'import os; assert os.confstr("CS_GNU_LIBC_VERSION") == "glibc 2.31", os.confstr("CS_GNU_LIBC_VERSION")'
  try "$name: the library runs a recorded step" in_root "$root" \
    /usr/bin/python3 /tried/prefill.py /tried/dsv2_chunked.safetensors
  found=$(in_root "$root" "$3" --list "/$(cd "$root" && echo tried/mla_prefill/_core.*.so)" 2>&1) || true
  echo "$found"
  try "$name: the extension module finds its libraries" test -z "$(grep 'not found' <<< "$found")"
}

installed bookworm amd64 cp311-cp311
installed bookworm arm64 cp311-cp311
installed trixie amd64 cp312-abi3
installed trixie arm64 cp312-abi3
bullseye amd64 x86_64 /lib64/ld-linux-x86-64.so.2
bullseye arm64 aarch64 /lib/ld-linux-aarch64.so.1
exit $failed
