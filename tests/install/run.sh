#!/usr/bin/env bash
# run.sh static|shared|subdirectory BUILD: builds and runs a consumer project against Paddock. BUILD: where
# the static library has been built.
set -eu
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
launcher=()
command -v ccache >/dev/null && launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
common=(-G Ninja -DCMAKE_BUILD_TYPE=Debug -DPADDOCK_CUDA=OFF "${launcher[@]}")
case $1 in
  static) cmake --install "$2" --prefix "$work/prefix" ;;
  shared)
    cmake -S "$root" -B "$work/build" "${common[@]}" -DPADDOCK_BUILD_TESTS=OFF \
      -DPADDOCK_BUILD_EXAMPLES=OFF -DCMAKE_INSTALL_PREFIX="$work/prefix" \
      -DBUILD_SHARED_LIBS=ON
    cmake --build "$work/build" --target install
    ;;
  subdirectory)
    cmake -S "$root/tests/install/add_subdirectory" -B "$work/consumer" "${common[@]}"
    ;;
esac
if [ "$1" != subdirectory ]; then
  cmake -S "$root/tests/install/find_package" -B "$work/consumer" "${common[@]}" \
    -DCMAKE_PREFIX_PATH="$work/prefix"
fi
cmake --build "$work/consumer"
"$work/consumer/consumer"
if [ "$1" = shared ]; then
  # Hidden visibility: of our own symbols only the public ones leave the library.
  if nm -DC --defined-only "$work"/prefix/lib/*/libpaddock.so "$work"/prefix/lib/libpaddock.so 2>/dev/null |
    grep -E 'paddock::(cpu|gguf|safetensors|CacheManager|PagePool|Llama)\b' | grep -v typeinfo; then
    echo "private symbols are exported" >&2
    exit 1
  fi
fi
