#!/usr/bin/env bash
# Each public header compiles alone, names nothing but the standard library and our own headers, and is in
# paddock/paddock.h, which says what it leaves out.
set -eu
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root/include"
for header in paddock/*.h; do
  if grep -nE '#include *[<"]' "$header" | grep -vE '#include (<[a-z_]+>|"paddock/[a-z_]+\.h")'; then
    echo "$header names a header that is not ours or the standard library's" >&2
    exit 1
  fi
  if ! grep -q "\"$header\"" paddock/paddock.h && ! grep -q "^//.*$header" paddock/paddock.h &&
    [ "$header" != paddock/paddock.h ] && [ "$header" != paddock/export.h ]; then
    echo "$header is not in paddock/paddock.h; include it there, or say there why not" >&2
    exit 1
  fi
  for compiler in g++ ${PADDOCK_TEST_WHOLE:+clang++}; do
    command -v "$compiler" >/dev/null || continue
    echo "#include <$header>" | "$compiler" -std=c++20 -Wall -Wextra -Wpedantic -Werror -I. -x c++ -fsyntax-only -
  done
done
