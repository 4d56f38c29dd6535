#!/usr/bin/env bash
# Builds the library and the tool with the CUDA backend, looks at what its kernels use
# (kernels/nvcc.sh), and runs both where there may be no driver: the CPU works as ever, and "cuda" either
# works or is refused in one line.
# usage: cuda.sh FOLDER [ARCHITECTURES]    (as CMake names them; default: all that we ship)
set -u
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
folder=$1
architectures=${2:+-DCMAKE_CUDA_ARCHITECTURES=$2}
fail() { echo "$*"; exit 1; }
export PATH=$PATH:/usr/local/cuda/bin
cmake -S "$root" -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=Release -DPADDOCK_BUILD_TESTS=OFF \
  -DPADDOCK_WERROR=ON -DPADDOCK_CUDA=ON -DCMAKE_CXX_FLAGS_RELEASE=-O0 \
  ${architectures:+"$architectures"} "-DCMAKE_CUDA_FLAGS=-Werror all-warnings -Xptxas -v" ||
  fail "cmake cannot configure"
log=$folder/build.log
cmake --build "$folder" >"$log" 2>&1 || { grep -E 'error|warning' "$log" | head -n 40; fail "the build failed"; }
# What the compiler said of each kernel, where nvcc.sh looks for it.
mkdir -p "$folder/nvcc"
awk -v folder="$folder/nvcc" '
  /Building CUDA object .*\/kernels\/cuda\// {
    name = $NF
    sub(/.*\//, "", name); sub(/\.cu\.o$/, "", name)
    out = folder "/kernels-cuda-" name ".log"
  }
  /^\[[0-9]+\/[0-9]+\]/ && !/Building CUDA object/ { out = "" }
  out != "" { print >out }' "$log"
bash "$root/tests/kernels/nvcc.sh" "$folder/nvcc" || fail "kernels/nvcc.sh"
tool=$folder/examples/paddock
model=$root/tests/data/golden/gqa2-linear
logits=$(mktemp)
trap 'rm -f "$logits"' EXIT
"$tool" logits -m "$model" --tokens 1,2,3 -o "$logits" || fail "the CPU does not work"
errors=$("$tool" logits -m "$model" --tokens 1,2,3 -o "$logits" --device cuda 2>&1)
status=$?
[ $status -eq 0 ] && { echo "a GPU computed logits"; exit 0; }
[ $status -eq 1 ] || fail "exit $status: $errors"
[ "$(echo "$errors" | wc -l)" -eq 1 ] || fail "more than one line: $errors"
case $errors in
  *"device 'cuda:0' is not available"*"use cpu"*) echo "$errors" ;;
  *) fail "unclear: $errors" ;;
esac
