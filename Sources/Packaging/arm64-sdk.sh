#!/bin/bash
# What it takes to build for 64-bit Arm Linux on another machine: Debian's arm64 packages
# of a release that has Swift, made into a sysroot and a Swift SDK. Prints its folder, in
# which toolset.json is for `swift build`, clang.cfg for `clang --config`, toolchain.cmake for
# CMake.
#
#   arm64-sdk.sh          for builds
#   arm64-sdk.sh test     Python in the sysroot as well, and an emulator, qemu-aarch64
#
# The folder is $MLA_ARM64_SDK, by default mla-prefill/arm64 in the user's cache. Made
# once, it needs no network any more, and no root. apt itself, with a state of its own,
# fetches: it checks the release's signature by Debian's keyring, the lists by the release's
# hashes, each package by its list's hash. Packages come from where the machine's own do,
# or from the archive $DEBIAN_MIRROR.
set -euo pipefail

# Swift is in the later release; what is linked against, of the earlier one, makes a library
# that older systems load.
releases="bookworm trixie"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
packages="swiftlang libc6 libc6-dev libstdc++6 libgcc-s1 libstdc++-12-dev libgcc-12-dev linux-libc-dev"
# Earlier emulators end with an assertion where a program with threads forks.
test_packages="qemu-user:$(dpkg --print-architecture 2> /dev/null)/trixie python3.11-minimal libpython3.11-minimal
  libpython3.11-stdlib libpython3.11-dev zlib1g libexpat1 libffi8 libbz2-1.0 liblzma5 libssl3 libsqlite3-0 libuuid1
  libncursesw6 libtinfo6 libcrypt1"
sdk=${MLA_ARM64_SDK:-${XDG_CACHE_HOME:-$HOME/.cache}/mla-prefill/arm64}

fail() {
  echo "arm64-sdk.sh: $1" >&2
  exit 1
}

# debian_mirror: where this machine's apt gets Debian from.
debian_mirror() {
  apt-get indextargets --format '$(REPO_URI)' 'Label: Debian' 2> /dev/null | sort -u | head -n 1
}

# fetch FOLDER PACKAGE...: the packages' files, into FOLDER.
fetch() {
  local release folder=$1 apt=$1/apt mirror=${DEBIAN_MIRROR:-$(debian_mirror)}
  command -v dpkg-deb > /dev/null && command -v apt-get > /dev/null || fail "needs apt and dpkg"
  [ -e "$keyring" ] || fail "needs $keyring, of the package debian-archive-keyring"
  [ -n "$mirror" ] || fail "knows no Debian archive; say which one: DEBIAN_MIRROR=http://.../debian"
  mkdir -p "$apt"/{lists/partial,cache/archives/partial,none.d}
  touch "$apt/status"
  for release in $releases; do
    echo "deb [signed-by=$keyring arch=arm64,$(dpkg --print-architecture)] $mirror $release main"
  done > "$apt/sources.list"
  cat > "$apt/apt.conf" <<CONFIGURATION
Dir::State "$apt";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::preferences "$apt/none";
Dir::Etc::preferencesparts "$apt/none.d";
APT::Default-Release "${releases%% *}";
APT::Architecture "arm64";
APT::Architectures {"arm64"; "$(dpkg --print-architecture)";};
APT::Get::AllowUnauthenticated "false";
APT::Sandbox::User "";
CONFIGURATION
  (
    export APT_CONFIG=$apt/apt.conf
    cd "$folder"
    apt-get update -qq --error-on=any && apt-get download -qq "${@:2}"
  ) >&2 || fail "could not fetch Debian's packages from $mirror: ${*:2}"
}

# unpack FOLDER: what the packages there are to the SDK, into FOLDER/sdk.
unpack() {
  local package link sysroot=$1/sdk/sysroot
  mkdir -p "$sysroot"
  for package in "$1"/*.deb; do
    case $(basename "$package") in
      swiftlang_*) unpack_swift "$package" "$1/sdk" ;;
      qemu-user_*) dpkg-deb --fsys-tarfile "$package" | tar -x -C "$1/sdk" --strip-components 3 ./usr/bin/qemu-aarch64 ;;
      *) dpkg-deb -x "$package" "$sysroot" ;;
    esac
  done
  # Links from the root of a system lead out of the sysroot.
  find "$sysroot" -lname '/*' | while read -r link; do
    ln -srfn "$sysroot$(readlink "$link")" "$link"
  done
}

# unpack_swift PACKAGE SDK: its standard library.
unpack_swift() {
  local resources=$2/swift swift=usr/libexec/swift/lib/swift_static
  mkdir -p "$resources" "$2/sysroot/usr/lib"
  dpkg-deb --fsys-tarfile "$1" |
    tar -x -C "$resources" --strip-components 6 --wildcards "./$swift/linux*" "./$swift/shims*"
  # Of another compiler's format: this one makes its own of the interface files beside them.
  find "$resources/linux" -type f \( -name '*.swiftmodule' -o -name '*.swiftdoc' \) -delete
  # Where the driver looks for them in a sysroot.
  ln -sfn ../../../swift "$2/sysroot/usr/lib/swift"
  ln -sfn ../../../swift "$2/sysroot/usr/lib/swift_static"
}

# have PURPOSE PACKAGE...: the SDK has these, from now on.
have() {
  local made_of="$releases: ${*:2}" made
  [ "$(cat "$sdk/$1" 2> /dev/null)" != "$made_of" ] || return 0
  made=$(mktemp -d "$sdk/making.XXXXXX")
  # shellcheck disable=SC2064
  trap "rm -rf '$made'" EXIT
  fetch "$made" "${@:2}"
  unpack "$made"
  cp -a --remove-destination "$made/sdk/." "$sdk"
  rm -rf "$made"
  echo "$made_of" > "$sdk/$1"
}

# use_toolchain: compiler and linker are this machine's, whichever Swift that has now.
use_toolchain() {
  local swift
  command -v swiftc > /dev/null || fail "needs Swift"
  swift=$(dirname "$(dirname "$(readlink -f "$(command -v swiftc)")")")
  ln -sfn "$swift"/lib/clang/* "$sdk/swift/clang"
  # By which name it strips.
  ln -sfn "$swift/bin/llvm-objcopy" "$sdk/llvm-strip"
  printf '%s\n' --target=aarch64-linux-gnu "--sysroot=$sdk/sysroot" -fuse-ld=lld > "$sdk/clang.cfg"
  cat > "$sdk/toolchain.cmake" <<TOOLCHAIN
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER "$swift/bin/clang")
set(CMAKE_CXX_COMPILER "$swift/bin/clang++")
set(CMAKE_C_FLAGS_INIT "--config=$sdk/clang.cfg")
set(CMAKE_CXX_FLAGS_INIT "--config=$sdk/clang.cfg")
set(CMAKE_AR "$swift/bin/llvm-ar")
set(CMAKE_STRIP "$sdk/llvm-strip")
TOOLCHAIN
  cat > "$sdk/toolset.json" <<TOOLSET
{
  "schemaVersion": "1.0",
  "rootPath": "$swift/bin",
  "swiftCompiler": {
    "extraCLIOptions": [
      "-use-ld=lld", "-static-stdlib", "-sdk", "$sdk/sysroot", "-resource-dir", "$sdk/swift"
    ]
  },
  "linker": {"path": "ld.lld"}
}
TOOLSET
}

mkdir -p "$sdk"
sdk=$(cd "$sdk" && pwd)
exec 9> "$sdk/lock"
flock 9
# shellcheck disable=SC2086
have made-of $packages
# shellcheck disable=SC2086
[ "${1:-}" != test ] || have tests-made-of $test_packages
use_toolchain
echo "$sdk"
