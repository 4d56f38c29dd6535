#!/usr/bin/env bash
# Cross-builds the static library for aarch64 and runs a smoke test in qemu's user mode. Needs Debian 12
# and network; installs its tools, but takes the arm64 libraries into build/aarch64 only. The last line
# counts.
set -u
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$root/build/aarch64
sysroot=$work/sysroot
compiler=aarch64-linux-gnu-g++
log=$work/log

fail() {
  [ -s "$log" ] && grep -iE 'error|failed|^[EW]:' "$log" | head -n 20 >&2
  echo "error: aarch64: $1" >&2
  exit 1
}
. "$root/examples/packages.sh"
need_packages cmake ninja-build g++-aarch64-linux-gnu qemu-user || exit 1
mkdir -p "$work" && : >"$log" || fail "cannot write to $work"

# The libraries, by an apt of our own: the machine's package lists and architectures stay as they are.
fetch_sysroot() {
  local apt=$work/apt name option options=()
  rm -rf "$apt" "$sysroot"
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/packages" "$sysroot" &&
    : >"$apt/status" || return 1
  for option in APT::Architecture=arm64 APT::Architectures=arm64 APT::Sandbox::User=root \
    Dir::State="$apt" Dir::State::status="$apt/status" Dir::Cache="$apt/cache"; do
    options+=(-o "$option")
  done
  (
    cd "$apt/packages" && apt-get "${options[@]}" update &&
      apt-get "${options[@]}" download libfmt-dev libfmt9 libpcre2-dev libpcre2-8-0 zlib1g-dev zlib1g nlohmann-json3-dev
  ) >>"$log" 2>&1 || return 1
  for name in "$apt"/packages/*.deb; do
    dpkg -x "$name" "$sysroot" >>"$log" 2>&1 || return 1
  done
  rm -rf "$apt"
  : >"$sysroot/complete"
}
[ -f "$sysroot/complete" ] || fetch_sysroot ||
  fail "cannot fetch the arm64 libraries (no network, or the disk is full?)"

cmake -S "$root" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DPADDOCK_SHARED=OFF \
  -DPADDOCK_BUILD_TESTS=OFF -DPADDOCK_BUILD_EXAMPLES=OFF -DPADDOCK_CUDA=OFF -DPADDOCK_WERROR=ON \
  -DCMAKE_INSTALL_PREFIX="$work/prefix" -DCMAKE_INSTALL_LIBDIR=lib \
  -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=$compiler \
  -DCMAKE_LIBRARY_ARCHITECTURE=aarch64-linux-gnu -DCMAKE_FIND_ROOT_PATH="$sysroot" \
  -DCMAKE_FIND_ROOT_PATH_MODE_INCLUDE=ONLY -DCMAKE_FIND_ROOT_PATH_MODE_LIBRARY=ONLY \
  -DCMAKE_FIND_ROOT_PATH_MODE_PACKAGE=ONLY >"$log" 2>&1 || fail "cmake cannot configure"
cmake --build "$work/build" -j "${PADDOCK_JOBS:-$(nproc)}" --target install >"$log" 2>&1 ||
  fail "the library does not build"

# A consumer with nothing but what was installed.
libraries=$sysroot/usr/lib/aarch64-linux-gnu
smoke=$work/aarch64_smoke
$compiler -std=c++20 -O1 -Wall -Wextra -Wpedantic -Werror -DPADDOCK_STATIC -I"$work/prefix/include" \
  -I"$root/tests" "$root/tests/install/aarch64_smoke.cpp" -o "$smoke" -L"$work/prefix/lib" -lpaddock \
  -L"$libraries" -lfmt -lpcre2-8 -lz -pthread >"$log" 2>&1 || fail "the smoke test does not build"
qemu-aarch64 -L /usr/aarch64-linux-gnu -E LD_LIBRARY_PATH="$libraries" "$smoke" \
  "$root/tests/data/golden" >"$log" 2>&1 || {
  cat "$log" >&2
  fail "the smoke test failed"
}
cat "$log"
echo "aarch64: passed"
