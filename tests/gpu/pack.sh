#!/usr/bin/env bash
# Gathers what check.sh needs into one folder that runs elsewhere: stripped programs, their libraries but
# for the C library's and CUDA's own, the tests' data and, if given, the first layers (and 8192 tokens) of
# a model.
# usage: pack.sh FOLDER [BUILD [MODEL.gguf [LAYERS]]]    BUILD: build/cuda, with the programs made by
#   cmake --preset cuda && cmake --build build/cuda --target gpu_test gpu_engines gpu_bench gpu_model gpu_logits gpu_speed
set -eu
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
[ $# -ge 1 ] || { echo "usage: pack.sh FOLDER [BUILD [MODEL.gguf [LAYERS]]]" >&2; exit 2; }
folder=$1 build=${2:-$root/build/cuda} model=${3:-} layers=${4:-3}
most=64 # MiB

mkdir -p "$folder/lib" "$folder/data"
for program in gpu_test gpu_engines gpu_bench gpu_model gpu_logits gpu_speed; do
  [ -x "$build/tests/$program" ] || { echo "error: $build/tests/$program is not built" >&2; exit 1; }
  strip -o "$folder/$program" "$build/tests/$program"
  ldd "$build/tests/$program" | sed -n 's/^\t\([^ ]*\) => \(\/[^ ]*\) .*/\1 \2/p' | while read -r name path; do
    case $name in
      libc.* | libm.* | libdl.* | librt.* | libpthread.* | libcu*) ;;
      *) cp -L "$path" "$folder/lib/$name" ;;
    esac
  done
done
cp "$root/tests/gpu/check.sh" "$root/tests/gpu/sdpa.py" "$folder"
rm -rf "$folder/data/golden"
cp -r "$root/tests/data/golden" "$folder/data"
[ -z "$model" ] || "$build/tests/gpu_model" truncate "$model" "$layers" "$folder/model.gguf" 8192
size=$(du -sm "$folder" | cut -f 1)
echo "$folder: $size MiB; run: bash $folder/check.sh"
[ "$size" -lt "$most" ] || { echo "error: more than $most MiB; build for one architecture only, or give fewer layers" >&2; exit 1; }
