#!/bin/bash
# Makes what users without Swift install, of what `make install` puts down, in .build/packages:
# Debian's packages of the library and of what programs are built with, and a tarball that may
# be unpacked anywhere. Prints their names and sizes.
#
#   package.sh ARCH VERSION      ARCH as uname has it: x86_64, aarch64
set -euo pipefail
cd "$(dirname "$0")/../.."

case $1 in
  x86_64) architecture=amd64 ;;
  aarch64) architecture=arm64 ;;
  *) echo "package.sh: knows no Debian for $1" >&2; exit 1 ;;
esac
out=$PWD/.build/packages
work=$PWD/.build/packages/$1
runtime=$work/libmlaprefill1
development=$work/libmlaprefill-dev
library=usr/lib/$1-linux-gnu
tarball=libmlaprefill-$2-linux-$1
# The same source makes the same files.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2> /dev/null || stat -c %Y CHANGELOG.md)}
export SOURCE_DATE_EPOCH DEB_HOST_ARCH=$architecture

# fill_in: what dpkg reads of a source package, below $work/debian.
fill_in() {
  mkdir -p "$work/debian"
  cp Sources/Packaging/debian/control "$work/debian"
  cat > "$work/debian/changelog" <<CHANGELOG
libmlaprefill ($1-1) unstable; urgency=medium

  * Release $1; what has changed is in changelog.gz.

 -- The libmlaprefill project <>  $(date -Ru --date "@$SOURCE_DATE_EPOCH")
CHANGELOG
  # dpkg knows the libraries of its own architecture only; those of another are as old.
  if [ "$architecture" = "$(dpkg --print-architecture)" ]; then
    (cd "$work" && dpkg-shlibdeps --warnings=1 -Tdebian/libmlaprefill1.substvars "$runtime/$library"/libmlaprefill.so.*)
  else
    echo "shlibs:Depends=libc6 (>= 2.28), libgcc-s1 (>= 3.3), libstdc++6 (>= 8)" > "$work/debian/libmlaprefill1.substvars"
  fi
}

# document PACKAGE FOLDER: copyright and changelogs.
document() {
  local doc=$2/usr/share/doc/$1
  mkdir -p "$doc"
  {
    cat Sources/Packaging/debian/copyright
    sed -n '/As an exception/,$p' python/licenses/swift-runtime.txt | sed 's/^ */ /; s/^ $/ ./'
  } > "$doc/copyright"
  gzip -9n < CHANGELOG.md > "$doc/changelog.gz"
  gzip -9n < "$work/debian/changelog" > "$doc/changelog.Debian.gz"
}

# build PACKAGE FOLDER
build() {
  (cd "$2" && find usr -type f -print0 | sort -z | xargs -0 md5sum > DEBIAN/md5sums)
  (cd "$work" && dpkg-gencontrol -p"$1" -P"$2" "-Tdebian/$1.substvars")
  chmod -R u=rwX,go=rX "$2"
  dpkg-deb --build --root-owner-group "$2" "$out" > /dev/null
}

debian() {
  make -s install ARCH="$1" DESTDIR="$development" PREFIX=/usr LIBDIR="lib/$1-linux-gnu" >&2
  rm -r "$development/usr/share/doc"
  mkdir -p "$development/DEBIAN" "$runtime/DEBIAN" "$runtime/$library" "$runtime/usr/share/lintian/overrides"
  mv "$development/$library"/libmlaprefill.so.* "$runtime/$library"
  chmod 644 "$runtime/$library"/libmlaprefill.so.*.*
  cp Sources/Packaging/debian/overrides "$runtime/usr/share/lintian/overrides/libmlaprefill1"
  echo "libmlaprefill 1 libmlaprefill1 (>= $2)" > "$runtime/DEBIAN/shlibs"
  echo "activate-noawait ldconfig" > "$runtime/DEBIAN/triggers"
  fill_in "$2"
  document libmlaprefill1 "$runtime"
  document libmlaprefill-dev "$development"
  build libmlaprefill1 "$runtime"
  build libmlaprefill-dev "$development"
}

rm -rf "$work" "$out"/*_"$architecture.deb" "$out"/*-linux-"$1.tar.gz"
mkdir -p "$work"
debian "$1" "$2"
make -s install ARCH="$1" DESTDIR="$work/" PREFIX="$tarball" LIBDIR=lib >&2
tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
  -c "$tarball" | gzip -9n > "$out/$tarball.tar.gz"
rm -rf "$work"
(cd "$out" && stat -c '%n %s' ./*"_$2-1_$architecture.deb" "$tarball.tar.gz" | sed 's,^\./,,')
