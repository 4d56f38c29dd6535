#!/usr/bin/env bash
# Compiles every CUDA kernel with nvcc for the architectures we ship, warnings as errors; prints what
# each uses; fails if a kernel that its file lists as `// hot: NAME...` keeps anything in local memory.
# usage: nvcc.sh FOLDER    (for objects and logs; what is newer than its sources is not compiled again)
set -u
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
folder=$1
nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null)
[ -n "$nvcc" ] || { echo "skipped: no nvcc"; exit 77; }
mkdir -p "$folder"
"$nvcc" --version | tail -n 2 | head -n 1

flags=(-std=c++20 -O3 -I "$root/kernels" -Werror all-warnings -Xcompiler -Wall,-Wextra -Xptxas -v
  -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=sm_90
  -gencode arch=compute_90,code=compute_90)
bad=0
compile() { # compile FILE.cu LOG
  local log=$2
  if [ -f "$log" ] && [ -z "$(find "$root/kernels" "$root/tests/kernels" -newer "$log" \
    \( -name '*.cu' -path "$1" -o -name '*.h' -o -name nvcc.sh \))" ]; then
    return 0
  fi
  "$nvcc" "${flags[@]}" -c "$1" -o "${log%.log}.o" >"$log.new" 2>&1 && mv "$log.new" "$log"
}

for source in "$root"/kernels/cuda/*.cu "$root"/tests/kernels/*.cu; do
  [ -f "$source" ] || continue
  name=${source#"$root/"}
  log=$folder/$(echo "${name%.cu}" | tr / -).log
  if ! compile "$source" "$log"; then
    echo "$name does not compile:"
    cat "$log.new"
    bad=1
    continue
  fi
  hot=$(sed -n 's|^// hot: *||p' "$source" | tr '\n' ' ')
  c++filt -p <"$log" | awk -v file="$name" -v hot="$hot" '
    BEGIN { split(hot, names, " "); for (i in names) missing[names[i]] = 1 }
    /Compiling entry function/ {
      split($0, quoted, "\047")
      kernel = quoted[2]; arch = quoted[4]
      base = kernel
      sub(/<.*/, "", base); sub(/.*::/, "", base); sub(/.*::/, "", kernel)
    }
    /Function properties for/ { of_kernel = 1; next }
    /bytes stack frame/ && kernel != "" { stack = $1; spills = $5 + $9 }
    /Used [0-9]+ registers/ {
      shared = 0
      for (i = 2; i <= NF; ++i) if ($i ~ /^smem/) shared = $(i - 2)
      registers = $0; sub(/.*Used /, "", registers); sub(/ .*/, "", registers)
      verdict = ""
      if (base in seen_hot || base in missing) {
        delete missing[base]; seen_hot[base] = 1; verdict = "  hot"
        if (spills > 0 || stack > 0) { verdict = "  HOT AND IN LOCAL MEMORY"; bad = 1 }
      }
      printf "%-32s %-6s %-40s %3d registers %6d shared %5d spilled %5d stack%s\n", file, arch, kernel,
             registers, shared, spills, stack, verdict
      kernel = ""
    }
    END {
      for (name in missing) { print file ": no kernel " name ", listed as hot"; bad = 1 }
      exit bad
    }' || bad=1
done
exit $bad
