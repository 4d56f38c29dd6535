#!/usr/bin/env bash
# Holds the CUDA backend against the CPU on a real GPU, measures it, and prints one table last. Runs what is
# already built, in a build folder or in one that pack.sh made; says what it skipped and why.
# usage: check.sh [FOLDER [MODEL.gguf]]
#   FOLDER: build/cuda or a packed folder (if not given, the one this script lies in)
#   MODEL:  a real model, compared layer by layer rule by rule; FOLDER/model.gguf if not given
# table.txt, bench.csv, sdpa.csv and logs.txt go to $OUT, or to a temporary folder. LIMIT (470): seconds that
# all of it may take.
# The programs need libcublas.so of the toolkit they were built with: where the loader does not find it by
# itself it is looked for in the usual places; else set LD_LIBRARY_PATH.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=${1:-$here} model=${2:-}
limit=${LIMIT:-470}
out=${OUT:-$(mktemp -d)}
logs=$(mktemp -d)
mkdir -p "$out"
: >"$out/logs.txt"
trap 'rm -rf "$logs" /dev/shm/paddock-check-$$.gguf "${TMPDIR:-/tmp}/paddock-check-$$.gguf"' EXIT
bin=$folder
[ -x "$folder/tests/gpu_test" ] && bin=$folder/tests
[ -x "$bin/gpu_test" ] || { echo "error: no gpu_test in $folder; see pack.sh" >&2; exit 1; }
[ -z "$model" ] && [ -f "$folder/model.gguf" ] && model=$folder/model.gguf
[ -d "$folder/data/golden" ] && export PADDOCK_TEST_DATA=$folder/data

results=() failed=0
row() { results+=("$(printf '%-44s %s' "$1" "$2")"); }
left() { echo $((limit - SECONDS)); }
# run NAME LOG MOST KEEP COMMAND...: a row with the outcome. MOST: its seconds; KEEP: those that must be left
# for what comes after. Returns the command's code, 124 where time ran out.
run() {
  local name=$1 log=$logs/$2 most=$3 keep=$4 start=$SECONDS code
  shift 4
  [ $(($(left) - keep)) -lt "$most" ] && most=$(($(left) - keep))
  if [ "$most" -lt 10 ]; then
    row "$name" "skipped: no time left"
    return 124
  fi
  timeout -k 5 "$most" "$@" >"$log" 2>&1
  code=$?
  { echo "==== $name (exit $code)"; cat "$log"; echo; } >>"$out/logs.txt"
  case $code in
    0) row "$name" "passed ($((SECONDS - start)) s)" ;;
    77) row "$name" "skipped: $(grep SKIPPED "$log" | tail -n 1 | sed 's/.*SKIPPED: //')" ;;
    124 | 137)
      if grep -qE 'FAILED|========= .*(Invalid|hazard|Uninit|Error)' "$log"; then
        row "$name" "FAILED, and cut short after $most s"
        failed=1
      else
        row "$name" "not finished: cut short after $most s, nothing wrong so far"
      fi
      code=124
      ;;
    *)
      row "$name" "FAILED (exit $code)"
      failed=1
      echo "---- $name"
      grep -E 'FAILED|Failure|error|=========' "$log" | head -n 20
      tail -n 10 "$log"
      ;;
  esac
  return $code
}

# ---- where cuBLAS is ----
libraries=${LD_LIBRARY_PATH:-} # PyTorch brings its own
missing() { ldd "$bin/gpu_bench" 2>/dev/null | sed -n 's/^\t\(.*\) => not found.*/\1/p' | tr '\n' ' '; }
if [[ $(missing) == *libcublas* ]]; then
  for place in "${CUDA_HOME:-/none}"/lib64 /usr/local/cuda*/lib{64,} /usr/local/cuda*/targets/x86_64-linux/lib \
    $(timeout 20 python3 -c 'import glob, site, sys
for p in sys.path + site.getsitepackages(): print(*glob.glob(p + "/nvidia/*/lib"))' 2>/dev/null); do
    ls "$place"/libcublas.so.* >/dev/null 2>&1 || continue
    before=${LD_LIBRARY_PATH:-}
    export LD_LIBRARY_PATH=$place${before:+:$before}
    [ -z "$(missing)" ] && break
    export LD_LIBRARY_PATH=$before
  done
fi
if [ -n "$(missing)" ]; then
  echo "error: these libraries are not found: $(missing)(set LD_LIBRARY_PATH)" >&2
  exit 1
fi

if command -v nvidia-smi >/dev/null; then
  device=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>&1 | head -n 1)
else
  device="no nvidia-smi"
fi
echo "$device; results go to $out"

# ---- is it right? ----
# Tests of mutants mean nothing on a device.
run "kernels against the CPU and float64" kernels.log 150 220 "$bin/gpu_test" \
  --gtest_filter='-*NeedsEachOfIts*'
has_device=$?
# Of the oracle's runs only some: it reads pages one by one, which takes minutes in small blocks.
run "the CPU's tests of engines" engines.log 120 200 "$bin/gpu_engines" \
  --gtest_filter='-RealModel*:*EveryRule*16_blocks*:DenseOracle.LayersMay*'
if [ -n "$model" ]; then
  run "logits of $(basename "$model"), every rule" logits.log 90 190 "$bin/gpu_logits" "$model"
else
  row "logits of a real model" "skipped: no model (pack.sh FOLDER BUILD MODEL.gguf)"
fi

# ---- is it clean? ----
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | head -n 1)
one_of_each=*/CudaDecode.Splits*:CudaMass.Uses*:CudaGemv.WalksMany*:PrefillAttention.SequencesDoNotMeet
one_of_each+=:CudaDecodeTensor.BlocksMayTake*:CudaTensorGemv.Multiplies*
one_of_each+=:PrefillAttention.EqualsFloat64UnderRules:CudaSmallOps*:CudaEmbed*:CudaSampling.Chooses*
check() { # check TOOL TESTS
  run "compute-sanitizer $1" "$1.log" 45 170 "$sanitizer" --tool "$1" --error-exitcode 9 "$bin/gpu_test" \
    --gtest_filter="$2"
}
if [ $has_device -eq 77 ]; then
  row "compute-sanitizer" "skipped: no CUDA device"
elif [ -n "$sanitizer" ]; then
  check memcheck "CudaEngine.Many*:CudaEngine.Sessions*:$one_of_each"
  check racecheck "$one_of_each"
  PADDOCK_LEAVE_UNWRITTEN=1 check initcheck "$one_of_each" # which takes a filled buffer for a written one
else
  row "compute-sanitizer" "skipped: not found"
fi

# ---- how fast is it? ----
run "speed of kernels" bench.log 110 90 "$bin/gpu_bench" --csv "$out/bench.csv"
rate() { awk -F, -v kernel="$1" '$1 == kernel { print $6 }' "$out/bench.csv" 2>/dev/null; }
rates=()
[ -n "$(rate copy)" ] && rates+=(--copy-rate "$(rate copy)")
[ -n "$(rate gemm)" ] && rates+=(--gemm-rate "$(rate gemm)")
run "PyTorch's attention beside it" sdpa.log 45 70 env LD_LIBRARY_PATH="$libraries" \
  python3 "$here/sdpa.py" --csv "$out/sdpa.csv" "${rates[@]}"

speeds=()
speed() { # speed SHAPE TYPE GB MOST: makes a model of so many GB and measures it
  local name="$1 $2" place=${TMPDIR:-/tmp} file
  for place in /dev/shm "${TMPDIR:-/tmp}" ""; do
    [ -n "$place" ] || break
    [ "$(df -BG --output=avail "$place" 2>/dev/null | tail -n 1 | tr -dc 0-9)" -gt $(($3 + 2)) ] 2>/dev/null && break
  done
  if [ $has_device -eq 77 ]; then
    row "tokens/s, $name" "skipped: no CUDA device"
  elif [ -z "$place" ]; then
    row "tokens/s, $name" "skipped: no room for $3 GB"
  elif [ "$(left)" -lt $(($4 / 2)) ]; then
    row "tokens/s, $name" "skipped: no time left"
  else
    file=$place/paddock-check-$$.gguf
    run "tokens/s, $name" "speed-$1-$2.log" "$4" 3 bash -c \
      '"$0/gpu_model" "$1" "$2" "$3" && shift 3 && exec "$0/gpu_speed" "$@"' \
      "$bin" "$1" "$file" "$2" "$file" "${rates[@]}"
    rm -f "$file"
    speeds+=("" "$name" "$(grep -E 'tokens/s' "$logs/speed-$1-$2.log" 2>/dev/null)")
  fi
}
speed 1B BF16 3 40
speed 8B BF16 17 80
speed 8B Q4_0 5 50
speed 1B Q4_0 1 30

# ---- the table ----
table() {
  echo
  echo "$device"
  printf '%s\n' "${results[@]}"
  if [ "$(wc -l <"$out/bench.csv" 2>/dev/null || echo 0)" -gt 1 ]; then
    echo
    echo "kernels (all rows: $out/bench.csv): microseconds, rate, part of the ceiling; PyTorch's microseconds"
    touch "$out/sdpa.csv"
    awk -F, -v sdpa="$out/sdpa.csv" '
      FILENAME == sdpa { if ($3 + 0 > 0) peer[$2] = $3 " us (" $11 ")"; next }
      FNR == 1 { next }
      $11 ~ /FAILED/ { printf "%-17s %-36s %s\n", $1, $2, $11; next }
      $1 == "copy" || $1 == "gemm" { printf "%-17s %-36s %16s %s\n", $1, $2, $6, $7; next }
      $10 == 1 {
        printf "%-17s %-36s %8.1f %7.1f %-7s %3.0f%%", $1, $2, $3, $6, $7, $8
        if ($1 ~ /decode_att|prefill_att/ && $2 in peer) printf "  %s", peer[$2]
        print ""
      }' "$out/sdpa.csv" "$out/bench.csv"
  fi
  printf '%s\n' ${speeds[@]+"${speeds[@]}"}
  if [ $failed -eq 0 ]; then echo "nothing FAILED ($SECONDS s)"; else echo "something FAILED: see above and $out/logs.txt"; fi
}
table >"$out/table.txt"
cat "$out/table.txt"
exit $failed
