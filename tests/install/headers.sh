#!/usr/bin/env bash
# Each public header compiles alone and names nothing but the standard library and our own headers.
set -eu
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root/include"
for header in paddock/*.h; do
  if grep -nE '#include *[<"]' "$header" | grep -vE '#include (<[a-z_]+>|"paddock/[a-z_]+\.h")'; then
    echo "$header names a header that is not ours or the standard library's" >&2
    exit 1
  fi
  for compiler in g++ ${PADDOCK_TEST_WHOLE:+clang++}; do
    command -v "$compiler" >/dev/null || continue
    echo "#include <$header>" | "$compiler" -std=c++20 -Wall -Wextra -Wpedantic -Werror -I. -x c++ -fsyntax-only -
  done
done
