#!/usr/bin/env bash
# Holds the CUDA backend against the CPU on a real GPU and prints one table. Runs what is already built:
#   cmake --preset cuda && cmake --build build/cuda --target gpu_test paddock_cli
# usage: check.sh FOLDER [MODEL]    FOLDER: build/cuda, or a copy of its programs; MODEL: for speed
set -u
folder=$1 model=${2:-}
test=$(ls "$folder/tests/gpu_test" "$folder/gpu_test" 2>/dev/null | head -n 1)
tool=$(ls "$folder/examples/paddock" "$folder/paddock" 2>/dev/null | head -n 1)
[ -n "$test" ] || { echo "error: no gpu_test in $folder" >&2; exit 1; }
results=() failed=0
row() { results+=("$(printf '%-44s %s' "$1" "$2")"); }
run() { # run NAME COMMAND...: a row with the outcome
  local name=$1 log start=$SECONDS
  shift
  log=$(mktemp)
  timeout 300 "$@" >"$log" 2>&1
  case $? in
    0) row "$name" "passed ($((SECONDS - start)) s)" ;;
    77) row "$name" "skipped: no CUDA device" ;;
    *)
      row "$name" "FAILED"
      failed=1
      tail -n 40 "$log"
      ;;
  esac
  rm -f "$log"
}

if command -v nvidia-smi >/dev/null; then
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
fi
# Tests of mutants mean nothing on a device.
run "kernels against the CPU and float64" "$test" \
  --gtest_filter='Cuda*:PrefillAttention*-*NeedsEachOfItsSites*:CudaEngine*'
run "engines against the CPU, every rule" "$test" --gtest_filter='CudaEngine*'
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
if [ -n "$sanitizer" ]; then
  for check in memcheck racecheck initcheck; do
    run "compute-sanitizer $check" "$sanitizer" --tool $check --error-exitcode 9 "$test" \
      --gtest_filter='CudaEngine.Many*:CudaEngine.Sessions*:CudaSmallOps*'
  done
else
  row "compute-sanitizer" "skipped: not found"
fi
if [ -n "$model" ] && [ -n "$tool" ]; then
  for device in cpu cuda; do
    speed=$("$tool" bench -m "$model" --device $device -p 512 -n 128 -r 3 2>&1 | grep -E 'pp|tg|error' |
      tr '\n' ' ')
    row "bench on $device" "$speed"
  done
else
  row "bench" "skipped: no model given"
fi
echo
printf '%s\n' "${results[@]}"
exit $failed
