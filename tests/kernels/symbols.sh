#!/usr/bin/env bash
# Object files for one instruction set must define no symbol that a linker could take for all: a weak
# copy of a shared inline function, compiled for AVX-512, would then run on machines without it.
# usage: symbols.sh LIBRARY.a
set -u
archive=$1 bad=0 seen=0
for object in fast_avx2 fast_avx512 fast_avx512_bf16 fast_amx; do
  symbols=$(nm -C --defined-only "$archive" 2>/dev/null | awk -v object="$object.cpp.o:" \
    '$1 == object { inside = 1; next } /:$/ { inside = 0 } inside && NF >= 3')
  [ -z "$symbols" ] && continue
  seen=$((seen + 1))
  # What lies in the instruction set's own namespace exists once.
  weak=$(echo "$symbols" | grep -E ' [WwVvu] ' | grep -v "paddock::cpu::${object#fast_}::" || true)
  [ -z "$weak" ] && continue
  echo "$object.cpp defines symbols that another instruction set may end up with:"
  echo "$weak"
  bad=1
done
[ "$seen" -gt 0 ] || { echo "no object of an instruction set was found in $archive"; exit 1; }
exit $bad
