#!/bin/bash
# A Debian 12 of its own in a folder, without Swift, to install packages in and to run what
# is installed. Kept in the user's cache; needs root, and for another architecture nothing of
# the machine's but an emulator, which is unknown outside.
#
#   debian_root.sh make ARCH              makes `bare`, Debian at its smallest, and `compilers`, with
#                                         gcc, g++, CMake, pkg-config, OpenBLAS (fetches 200 MB once)
#   debian_root.sh run ARCH ROOT COMMAND...  in a copy of that root, which is gone afterwards; the
#                                         project is /project there, and .build/packages is /packages
#
# ARCH as Debian has it: amd64, arm64. Status 77: it cannot be done here.
set -euo pipefail
cd "$(dirname "$0")/../.."

roots=${XDG_CACHE_HOME:-$HOME/.cache}/mla-prefill/debian-12/$2
magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'

cannot() {
  echo "$1"
  exit 77
}

# alone ARCH COMMAND...: with users, mounts and processes of its own, where programs of ARCH run.
alone() {
  local status=0 ready pid
  ready=$(mktemp -d)
  mkfifo "$ready/fifo"
  # The shell waits for its users.
  unshare --user bash -c 'read -r < "$1"; exec unshare --mount --pid --fork "$0" within "${@:2}"' \
    "$PWD/Tests/Packaging/debian_root.sh" "$ready/fifo" "$@" &
  pid=$!
  until [ "$(readlink "/proc/$pid/ns/user")" != "$(readlink /proc/self/ns/user)" ]; do sleep 0.05; done
  echo "0 0 4294967295" > "/proc/$pid/uid_map"
  echo "0 0 4294967295" > "/proc/$pid/gid_map"
  echo > "$ready/fifo"
  wait $pid || status=$?
  rm -r "$ready"
  return $status
}

# within ARCH COMMAND...
within() {
  local emulator
  if [ "$1" != "$(dpkg --print-architecture)" ]; then
    emulator=$(Sources/Packaging/arm64-sdk.sh test)/qemu-aarch64
    mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
    # Opened now, by its path out here.
    echo ":arm64:M::$magic:$mask:$emulator:F" > /proc/sys/fs/binfmt_misc/register
  fi
  "${@:2}"
}

# prepare FOLDER: what programs find in any root.
prepare() {
  local device
  mount -t proc proc "$1/proc"
  for device in null zero urandom random tty; do
    [ -e "$1/dev/$device" ] || touch "$1/dev/$device"
    mount --bind "/dev/$device" "$1/dev/$device"
  done
}

# in_root FOLDER COMMAND...
in_root() { env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 chroot "$@"; }

# install FOLDER ARCH: the packages that apt or debootstrap has put there. This machine's dpkg
# unpacks them, an emulated one takes half an hour; their scripts are run there, and all is
# well when the dpkg there says so.
install() {
  local own
  own=$(dpkg --print-architecture)
  prepare "$1"
  [ "$2" = "$own" ] || printf '%s\n' "$own" "$2" > "$1/var/lib/dpkg/arch"
  # Packages of no architecture need those of dpkg's own.
  env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    dpkg --root="$1" --log=/dev/null --force-depends --force-unsafe-io --install "$1"/var/cache/apt/archives/*.deb
  rm -f "$1/var/lib/dpkg/arch" "$1"/var/cache/apt/archives/*.deb
  in_root "$1" sh -c 'dpkg --configure -a && apt-get check && ! dpkg --audit | grep .'
}

# in_copy ROOT COMMAND...: the copy is in memory.
in_copy() {
  local copy=/run
  mount -t tmpfs tmpfs $copy
  cp -a "$1/." $copy
  mkdir -p $copy/{project,packages}
  mount --rbind "$PWD" $copy/project
  mount --bind .build/packages $copy/packages
  prepare $copy
  in_root $copy "${@:2}"
}

# add FOLDER ARCH FETCHED: of the packages fetched those that it lacks.
add() {
  local file name
  for file in "$3"/var/cache/apt/archives/*.deb; do
    name=$(basename "$file")
    name=${name%%_*}
    [ -e "$1/var/lib/dpkg/info/$name.list" ] || [ -e "$1/var/lib/dpkg/info/$name:$2.list" ] ||
      cp "$file" "$1/var/cache/apt/archives"
  done
}

# make ARCH
make() {
  local mirror new=$roots.new bootstrap
  [ ! -e "$roots" ] || return 0
  command -v debootstrap > /dev/null || cannot "needs debootstrap"
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Label: Debian' | sort -u | head -n 1)
  bootstrap=(debootstrap --variant=minbase "--arch=$1")
  rm -rf "$new"
  mkdir -p "$new"
  "${bootstrap[@]}" --foreign bookworm "$new/bare" "$mirror"
  # In some containers debootstrap makes it a link to the machine's.
  rm -f "$new/bare/proc" 2> /dev/null || true
  mkdir -p "$new/bare/proc"
  alone "$1" install "$new/bare" "$1"
  "${bootstrap[@]}" --download-only --include=gcc,g++,make,cmake,pkg-config,libc6-dev,libopenblas-dev \
    bookworm "$new/fetched" "$mirror"
  cp -a "$new/bare" "$new/compilers"
  add "$new/compilers" "$1" "$new/fetched"
  alone "$1" install "$new/compilers" "$1"
  rm -r "$new/fetched"
  # Device files cannot be copied by other users.
  rm -rf "$new"/*/dev/*
  mv "$new" "$roots"
}

case $1 in
  within) "$@" ;;
  *)
    [ "$(id -u)" = 0 ] || cannot "needs root"
    unshare --user true 2> /dev/null || cannot "needs namespaces of users"
    case $1 in
      make) make "$2" ;;
      run) alone "$2" in_copy "$roots/$3" "${@:4}" ;;
    esac
    ;;
esac
