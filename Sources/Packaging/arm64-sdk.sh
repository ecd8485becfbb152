#!/bin/bash
# What it takes to build for 64-bit Arm Linux on another machine: Debian's arm64 packages
# of a release that has Swift, made into a sysroot and a Swift SDK. Prints its folder, in
# which toolset.json is for `swift build`, clang.cfg for `clang --config`.
#
#   arm64-sdk.sh
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
sdk=${MLA_ARM64_SDK:-${XDG_CACHE_HOME:-$HOME/.cache}/mla-prefill/arm64}

fail() {
  echo "arm64-sdk.sh: $1" >&2
  exit 1
}

# debian_mirror: where this machine's apt gets Debian from.
debian_mirror() {
  apt-get indextargets --format '$(REPO_URI)' 'Label: Debian' 2> /dev/null | sort -u | head -n 1
}

# fetch FOLDER: the packages' files, into FOLDER.
fetch() {
  local release folder=$1 apt=$1/apt mirror=${DEBIAN_MIRROR:-$(debian_mirror)}
  command -v dpkg-deb > /dev/null && command -v apt-get > /dev/null || fail "needs apt and dpkg"
  [ -e "$keyring" ] || fail "needs $keyring, of the package debian-archive-keyring"
  [ -n "$mirror" ] || fail "knows no Debian archive; say which one: DEBIAN_MIRROR=http://.../debian"
  mkdir -p "$apt"/{lists/partial,cache/archives/partial,none.d}
  touch "$apt/status"
  for release in $releases; do
    echo "deb [signed-by=$keyring arch=arm64] $mirror $release main"
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
APT::Architectures {"arm64";};
APT::Get::AllowUnauthenticated "false";
APT::Sandbox::User "";
CONFIGURATION
  (
    export APT_CONFIG=$apt/apt.conf
    cd "$folder"
    # shellcheck disable=SC2086
    apt-get update -qq --error-on=any && apt-get download -qq $packages
  ) >&2 || fail "could not fetch Debian's packages from $mirror: $packages"
}

# unpack FOLDER: makes the SDK in it out of the packages there.
unpack() {
  local package link resources=$1/swift swift=usr/libexec/swift/lib/swift_static
  mkdir -p "$1/sysroot" "$resources"
  for package in "$1"/lib*.deb "$1"/linux-libc-dev*.deb; do dpkg-deb -x "$package" "$1/sysroot"; done
  # Links from the root of a system lead out of the sysroot.
  find "$1/sysroot" -lname '/*' | while read -r link; do
    ln -srfn "$1/sysroot$(readlink "$link")" "$link"
  done
  dpkg-deb --fsys-tarfile "$1"/swiftlang_*.deb |
    tar -x -C "$resources" --strip-components 6 --wildcards "./$swift/linux*" "./$swift/shims*"
  # Of another compiler's format: this one makes its own of the interface files beside them.
  find "$resources/linux" -type f \( -name '*.swiftmodule' -o -name '*.swiftdoc' \) -delete
  # Where the driver looks for them in a sysroot.
  ln -sfn ../../../swift "$1/sysroot/usr/lib/swift"
  ln -sfn ../../../swift "$1/sysroot/usr/lib/swift_static"
}

# use_toolchain: compiler and linker are this machine's, whichever Swift that has now.
use_toolchain() {
  local swift
  command -v swiftc > /dev/null || fail "needs Swift"
  swift=$(dirname "$(dirname "$(readlink -f "$(command -v swiftc)")")")
  ln -sfn "$swift"/lib/clang/* "$sdk/swift/clang"
  printf '%s\n' --target=aarch64-linux-gnu "--sysroot=$sdk/sysroot" -fuse-ld=lld > "$sdk/clang.cfg"
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

if [ "$(cat "$sdk/made-of" 2> /dev/null)" != "$releases $packages" ]; then
  mkdir -p "$(dirname "$sdk")"
  made=$(mktemp -d "$sdk.XXXXXX")
  trap 'rm -rf "$made"' EXIT
  fetch "$made"
  unpack "$made"
  rm -rf "$made"/*.deb "$made/apt"
  echo "$releases $packages" > "$made/made-of"
  chmod 755 "$made"
  rm -rf "$sdk"
  mv "$made" "$sdk"
fi
use_toolchain
echo "$sdk"
