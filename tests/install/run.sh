#!/usr/bin/env bash
# run.sh static|shared|subdirectory BUILD: builds and runs a consumer project against Paddock. BUILD: where
# the static library has been built. What is installed is moved before it is used: it may lie anywhere.
set -eu
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
launcher=()
command -v ccache >/dev/null && launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
common=(-G Ninja -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG=-O0 "${launcher[@]}")
prefix=$work/moved
fail() { echo "$*" >&2; exit 1; }

# The three components share nothing and are all there is.
check_components() {
  local build=$1 component
  for component in library headers tool; do
    mkdir -p "$work/$component"
    cmake --install "$build" --prefix "$work/$component" --component "paddock_$component" >/dev/null
    (cd "$work/$component" && find . ! -type d) | LC_ALL=C sort >"$work/$component.list"
  done
  grep -qE '^\./lib/.*libpaddock\.(a|so\.0)' "$work/library.list" || fail "no library in its component"
  grep -qE '/(bin|include|cmake|pkgconfig)/' "$work/library.list" && fail "more than the library in its component"
  grep -qx ./include/paddock/engine.h "$work/headers.list" || fail "no headers in their component"
  [ "$(cat "$work/tool.list")" = "${2-./bin/paddock}" ] || fail "the tool's component holds: $(cat "$work/tool.list")"
  LC_ALL=C sort "$work"/{library,headers,tool}.list >"$work/components"
  (cd "$prefix" && find . ! -type d) | LC_ALL=C sort | diff - "$work/components" ||
    fail "the components are not all that is installed"
}

# A consumer that knows pkg-config alone; further arguments are pkg-config's.
check_pkg_config() {
  local flags
  PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name paddock.pc)")
  export PKG_CONFIG_PATH
  [ "$(pkg-config --modversion paddock)" = 0.1.0 ] || fail "wrong version in paddock.pc"
  flags=$(pkg-config --cflags --libs "$@" paddock)
  echo "pkg-config $*: $flags"
  # shellcheck disable=SC2086
  ${CXX:-g++} -std=c++20 -Wall -Wextra -Werror -o "$work/by_pkg_config" "$root/tests/install/consumer.cpp" $flags
  LD_LIBRARY_PATH=$(dirname "$PKG_CONFIG_PATH") "$work/by_pkg_config"
}

# What the headers mark is exported, and nothing else.
check_symbols() {
  local library=$1
  nm -DC --defined-only "$library" | sed -E 's/^[0-9a-f]* +[A-Za-z] +//' | LC_ALL=C sort -u >"$work/exported"
  if grep -vE '^((typeinfo|typeinfo name|vtable) for )?paddock::' "$work/exported"; then
    fail "symbols that are not ours are exported"
  fi
  sed -E 's/^(typeinfo|typeinfo name|vtable) for //; s/^paddock::([A-Za-z_0-9]+).*/\1/' "$work/exported" |
    LC_ALL=C sort -u >"$work/exported.names"
  # "PADDOCK_API type name(", "class PADDOCK_API Name"; a type or a template may precede the name.
  cat "$root"/include/paddock/*.h | tr '\n' ' ' | sed -E 's/#define PADDOCK_API//g; s/PADDOCK_API/\n&/g' |
    sed -nE 's/^PADDOCK_API ([A-Z][A-Za-z_0-9]*) *(final *)?[:{].*/\1/p; t
             s/^PADDOCK_API ([^;{(]*[ &*>])?([a-z_0-9]+)\(.*/\2/p' | LC_ALL=C sort -u >"$work/promised.names"
  [ "$(wc -l <"$work/promised.names")" -gt 20 ] || fail "the headers promise hardly anything: $(cat "$work/promised.names")"
  diff "$work/promised.names" "$work/exported.names" || fail "< promised by a header, > exported"
}

case $1 in
  static) cmake --install "$2" --prefix "$work/prefix" ;;
  shared)
    # The same sources once more: where somebody asks for everything.
    [ -n "${PADDOCK_TEST_WHOLE:-}" ] || { echo "tests/run.sh --full builds the shared library"; exit 77; }
    cmake -S "$root" -B "$work/build" "${common[@]}" -DPADDOCK_BUILD_TESTS=OFF -DPADDOCK_CUDA=OFF \
      -DPADDOCK_BUILD_EXAMPLES=OFF -DCMAKE_INSTALL_PREFIX="$work/prefix" -DPADDOCK_SHARED=ON
    cmake --build "$work/build" --target install
    ;;
  subdirectory)
    cmake -S "$root/tests/install/add_subdirectory" -B "$work/consumer" "${common[@]}"
    # What it asks of the targets is asked by now. The library's sources are those that were built before:
    # they are built for a third time where somebody says so.
    [ -n "${PADDOCK_TEST_WHOLE:-}" ] || exit 0
    ;;
esac
if [ "$1" != subdirectory ]; then
  mv "$work/prefix" "$prefix"
  cmake -S "$root/tests/install/find_package" -B "$work/consumer" "${common[@]}" \
    -DCMAKE_PREFIX_PATH="$prefix"
fi
cmake --build "$work/consumer"
"$work/consumer/consumer"
case $1 in
  static)
    check_components "$2"
    check_pkg_config --static
    check_pkg_config
    ;;
  shared)
    check_components "$work/build" ""
    check_pkg_config
    check_symbols "$(find "$prefix" -name libpaddock.so)"
    ;;
esac
