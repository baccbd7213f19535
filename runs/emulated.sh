#!/usr/bin/env bash
# Proves the kernels of processors that this machine is not, under emulators: NEON (qemu-aarch64), AVX-512 VNNI and
# AVX-VNNI (a whole machine under Bochs 3.0, with Debian's kernel 6.12). About 5 minutes of one core, 300 MB in out/.
# On Debian, amd64; needs no root. Bochs is taken from Debian 13, and unpacked beside the system rather than installed.
# Installed beforehand: apt-get install g++ g++-aarch64-linux-gnu qemu-user xorriso isolinux syslinux-common
set -euo pipefail
python=${PYTHON:-python3}
root=$(mkdir -p out/emulator && cd out/emulator && pwd)
if [ ! -e "$root/bochs" ]; then
  mkdir -p "$root"/{state/lists/partial,cache/archives/partial,tree,kernel}
  mirror=$(grep -rhoE "https?://[^ ]+/debian/?( |$)" /etc/apt/sources.list* | head -n 1 || true)
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" > "$root/sources.list"
  printf '%s "%s";\n' Dir::State "$root/state" Dir::State::status /dev/null Dir::Cache "$root/cache" \
    Dir::Etc::sourcelist "$root/sources.list" Dir::Etc::sourceparts - APT::Sandbox::User "$(id -un)" > "$root/apt.conf"
  export APT_CONFIG="$root/apt.conf"
  apt-get -qq update
  apt-get -qq install --no-install-recommends --download-only -y -o Debug::NoLocking=1 bochs bochs-term ncurses-base
  for package in "$root"/cache/archives/*.deb; do dpkg-deb -x "$package" "$root/tree"; done
  name=$(apt-cache depends linux-image-cloud-amd64 | grep -oE 'linux-image-6[^ ]+' | head -n 1)
  (cd "$root/kernel" && apt-get -qq download "$name" && dpkg-deb -x ./*.deb .)
  unset APT_CONFIG
  cat > "$root/bochs.new" <<BOCHS
#!/bin/sh
libraries=$root/tree/usr/lib/x86_64-linux-gnu
export LTDL_LIBRARY_PATH=\$libraries/bochs/plugins BXSHARE=$root/tree/usr/share/bochs TERMINFO=$root/tree/usr/lib/terminfo
exec \$libraries/ld-linux-x86-64.so.2 --library-path \$libraries:\$libraries/pulseaudio $root/tree/usr/bin/bochs-bin "\$@"
BOCHS
  chmod +x "$root/bochs.new" && mv "$root/bochs.new" "$root/bochs"
fi
LIMNER_BOCHS="$root/bochs" LIMNER_EMULATOR_KERNEL=$(ls "$root"/kernel/boot/vmlinuz-*) \
  "$python" -m pytest -m slow -rs tests/runtime/fused/test_emulated.py
