#!/usr/bin/env bash
# Installs what is needed, builds, fetches a real model, generates text and shows what each layer's cache
# holds. A second run takes seconds.
set -u
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/examples/packages.sh"
need_packages g++ cmake ninja-build libfmt-dev nlohmann-json3-dev libpcre2-dev zlib1g-dev libcli11-dev \
  libspdlog-dev python3 python3-pip ca-certificates || exit 1
build=$root/build/release
log=$(mktemp) || { echo "error: cannot write a temporary file (is the disk full?)" >&2; exit 1; }
trap 'rm -f "$log"' EXIT
[ -x "$build/examples/paddock" ] || echo "building; the first time takes minutes" >&2
if ! { cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DPADDOCK_BUILD_TESTS=OFF \
  -DPADDOCK_CUDA=OFF &&
  cmake --build "$build" --target paddock_cli; } >"$log" 2>&1; then
  why=$(grep -m1 -iE 'no space left|error:|CMake Error' "$log" || tail -n 1 "$log")
  echo "error: the build failed: $why; see it with: cmake --build $build" >&2
  exit 1
fi
model=$(bash "$root/examples/fetch_model.sh" smollm2) || exit 1
exec "$build/examples/paddock" generate -m "$model" --temp 0 -n 96 -c 2048 --kv-stats \
  -p "${1:-The llama is a domesticated animal of South America. It}"
