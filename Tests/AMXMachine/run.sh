#!/bin/bash
# The AMX kernels, and what decides to use them, on an emulated CPU under Debian's
# kernel.
#
#   BOCHS=SOURCE run.sh [MACHINE...]
#
# SOURCE is the folder of Bochs's source that holds `configure`. A machine is a file of
# `machines`: more arguments for Linux, and programs, each a name and a command;
# default: all. The emulator is built once. It, Linux and the logs are kept in
# .build-amx.
set -euo pipefail
cd "$(dirname "$0")/../.."

root=$PWD
here=$root/Tests/AMXMachine
out=$root/.build-amx
modules="scsi_common scsi_mod libata ata_piix cdrom sr_mod isofs"

# Bochs with what `emulator` adds to it.
emulator() {
  [ ! "$out/bochs/bochs" -nt "$here/emulator/amx_state.cc" ] || return 0
  [ -x "${BOCHS:-}/configure" ] || { echo "BOCHS=${BOCHS:-} is not a folder of Bochs's source" >&2; exit 2; }
  rm -rf "$out/bochs"
  cp -r "$BOCHS" "$out/bochs"
  cp -r "$here/emulator" "$out/bochs/instrument/amx"
  (
    cd "$out/bochs"
    CXXFLAGS="-O2 -march=native" ./configure --with-nogui --enable-instrumentation=instrument/amx \
      --enable-x86-64 --enable-avx --enable-evex --enable-amx --enable-all-optimizations --disable-docbook
    make -j"$(nproc)" bochs
  )
}

# Debian's kernel and the modules that read a CD; not installed, only unpacked.
kernel() {
  [ ! -e "$out/kernel/vmlinuz" ] || return 0
  local package
  package=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: //p')
  rm -rf "$out/kernel"
  mkdir -p "$out/kernel/modules"
  (
    cd "$out/kernel"
    apt-get -qq download "$package"
    dpkg-deb --extract ./*.deb unpacked
    for module in $modules; do find unpacked -name "$module.ko" -exec mv {} modules \;; done
    mv unpacked/boot/vmlinuz-* vmlinuz
    rm -rf unpacked ./*.deb
  )
}

programs() {
  make -s install PREFIX="$root/.build/stage" DESTDIR=
  make -s -C Tests/ABI
  MLA_TESTABLE=1 swift build --build-tests -c release --scratch-path .build-tests
}

# The memory disk that starts the guest.
initrd() {
  local tree=$out/initrd
  rm -rf "$tree"
  mkdir -p "$tree"/{bin,proc,dev,tmp,cd,lib64}
  cp "$(command -v busybox)" "$tree/bin/busybox"
  cp -r "$out/kernel/modules" "$tree/modules"
  sed "s/@MODULES@/$modules/" "$here/init" > "$tree/init"
  chmod +x "$tree/init"
  (cd "$tree" && find . | cpio --quiet -o -H newc) > "$out/cd/boot/initrd"
}

# The CD: programs, the libraries they need, data, a boot loader.
cd_contents() {
  local tree=$out/cd
  rm -rf "$tree"
  mkdir -p "$tree"/{boot/grub,lib,work/Tests}
  cp "$out/kernel/vmlinuz" "$tree/boot"
  initrd
  gcc -O2 -Wall -Wextra "$here/refuse_tiles.c" -o "$tree/work/refuse_tiles"
  gcc -O2 -std=c99 -D_POSIX_C_SOURCE=200809L -I.build/stage/include examples/c/*.c -L.build/stage/lib \
    -lmlaprefill -lm -o "$tree/work/prefill"
  find .build/abi -type f -executable -exec cp {} "$tree/work" \;
  cp .build-tests/release/MLAPrefillPackageTests.xctest "$tree/work/swift_tests"
  cp -r Tests/Data "$tree/work/Tests"
  cp -L .build/stage/lib/libmlaprefill.so.1 "$tree/lib"
  for program in "$tree"/work/*; do
    [ -d "$program" ] || ldd "$program" | grep -o '/[^ ]*' | xargs cp -Lut "$tree/lib"
  done
  cp -L /lib64/ld-linux-x86-64.so.2 "$tree/lib"
  grub-mkimage -O i386-pc-eltorito -p /boot/grub -o "$tree/boot/grub/core.img" biosdisk iso9660 linux normal
}

# boot MACHINE: until it turns itself off. What the guest says is in MACHINE.log.
boot() {
  local machine=$out/$1
  local arguments
  arguments=$(sed -n 's/^linux //p' "$here/machines/$1")
  grep -vE '^(#|linux )' "$here/machines/$1" > "$out/cd/programs"
  {
    echo "linux /boot/vmlinuz console=ttyS0,115200 quiet nokaslr mitigations=off tsc=reliable $arguments"
    echo "initrd /boot/initrd"
    echo "boot"
  } > "$out/cd/boot/grub/grub.cfg"
  xorriso -as mkisofs -quiet -R -o "$machine.iso" -b boot/grub/core.img -no-emul-boot -boot-load-size 4 \
    -boot-info-table "$out/cd" 2> "$machine.iso.log"
  sed "s|@OUT@|$out|; s|@MACHINE@|$machine|" "$here/bochsrc.in" > "$machine.bochsrc"
  rm -f "$machine.log"
  # Turning itself off ends Bochs with an error.
  timeout 3600 "$out/bochs/bochs" -q -f "$machine.bochsrc" < /dev/null > /dev/null 2>&1 || true
}

# report MACHINE: a line a program, and what a failed one said.
report() {
  awk -v machine="$1" '
    { sub(/\r$/, "") }
    /^BEGIN / { name = $2; text = ""; next }
    /^END / && $2 == name {
      if ($3 == 0 && text !~ /(^|\n)  not ok /) print "ok", machine, name, $4, "s"
      else printf "not ok %s %s: status %d\n%s", machine, name, $3, text
      name = ""
    }
    name != "" { text = text "  " $0 "\n" }
    /Power down/ { ended = 1 }
    END { if (!ended) printf "not ok %s: ended in %s\n%s", machine, name, text }
  ' "$out/$1.log"
}

# The same program here, on the model of the tiles.
same_bits() {
  local here there
  here=$(.build-tests/release/MLAPrefillPackageTests.xctest AMXKernelTests.AMXBitsTests | grep '^bits ') || true
  there=$(tr -d '\r' < "$out/amx.log" | grep '^bits ') || true
  if [ -z "$here" ]; then
    echo "the model of the tiles needs AVX-512 with BF16: bits not compared"
  elif [ "$here" = "$there" ]; then
    echo "ok the $(wc -l <<< "$here") results have the bits that the model of the tiles gives"
  else
    echo "not ok other bits than those that the model of the tiles gives"
    diff <(echo "$here") <(echo "$there") || true
  fi
}

if grep -q amx_tile /proc/cpuinfo; then
  echo "This CPU has AMX: \`make test\` runs its kernels on it."
  exit 0
fi
mkdir -p "$out"
# In the background, for there `set -e` holds although the result is looked at.
(emulator; kernel; programs) > "$out/build.log" 2>&1 &
wait $! || { tail -20 "$out/build.log" >&2; exit 1; }
cd_contents
[ $# -gt 0 ] || set -- amx no-tiles
for machine in "$@"; do
  boot "$machine"
  report "$machine"
  if [ "$machine" = amx ]; then same_bits; fi
done | tee "$out/results"
awk '/^ok / { passed++ } /^not ok / { failed++ }
  END { print passed + 0 " passed, " failed + 0 " failed"; exit failed > 0 }' "$out/results"
