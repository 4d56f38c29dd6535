#!/usr/bin/env bash
# Builds Paddock and passes all its tests. Installs what it needs (Debian 12). The last line counts.
#   --full  a second compiler and machine, every CUDA architecture, sanitizers, fuzz targets and the consumer
#           projects, too. Of them CI runs without asking: the sanitizers (of most programs), the consumer of the
#           static library, what add_subdirectory() asks of the targets, and one architecture
#   --long  makes every fault of tests/mutants and sees whether the tests notice: by far the longest
set -u
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/examples/packages.sh"
need_packages g++ clang cmake ninja-build libfmt-dev nlohmann-json3-dev libpcre2-dev zlib1g-dev libcli11-dev \
  libspdlog-dev libgtest-dev libgmock-dev python3 python3-pip ca-certificates git || exit 1

full=${CI:-} long='' whole=''
for option in "$@"; do
  case $option in
    --full) full=yes whole=yes ;;
    --long) long=yes ;;
    *) echo "unknown option $option; there are --full and --long" && exit 2 ;;
  esac
done
[ -n "$whole" ] && export PADDOCK_TEST_WHOLE=yes
if [ -n "$full" ]; then need_packages libclang-rt-dev pkgconf || exit 1; fi
passed=0 failed=0 skipped=0
note() { echo "== $*"; }
step() { # step NAME COMMAND...: one more test that is not of ctest
  local name=$1 log
  shift
  log=$(mktemp)
  note "$name"
  if "$@" >"$log" 2>&1; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    tail -n 40 "$log"
    echo "FAILED: $name"
  fi
  rm -f "$log"
}

# Tests on real files are skipped where these cannot be had, but never in CI.
for item in smollm2:PADDOCK_TEST_MODEL llama3-vocabulary:PADDOCK_TEST_LLAMA3_VOCAB; do
  variable=${item#*:}
  [ -n "${!variable:-}" ] && continue
  if path=$(bash "$root/examples/fetch_model.sh" "${item%%:*}"); then
    export "$variable=$path"
  else
    echo "WARNING: tests that need ${item%%:*} will be skipped"
    [ -n "${CI:-}" ] && failed=$((failed + 1))
  fi
done

if [ -z "${PADDOCK_PROMTOOL:-}" ]; then
  if path=$(bash "$root/tests/support/promtool.sh" "$root/build/tools"); then
    export PADDOCK_PROMTOOL=$path
  else
    echo "WARNING: the test that needs promtool will be skipped"
    [ -n "${CI:-}" ] && failed=$((failed + 1))
  fi
fi

# build FOLDER OPTION...; its messages only where it fails. $targets limits what is built.
# The cache's books are checked after every step in whatever is tested.
build() {
  local folder=$1 log
  shift
  log=$(mktemp)
  if cmake -S "$root" -B "$folder" -G Ninja -DPADDOCK_CUDA=OFF -DPADDOCK_CHECK_STEPS=ON "$@" >"$log" 2>&1 &&
    cmake --build "$folder" ${targets:+--target $targets} >>"$log" 2>&1; then
    rm -f "$log"
    return 0
  fi
  grep -E 'error|Error|FAILED' "$log" | head -n 40
  rm -f "$log"
  return 1
}

run_ctest() { # run_ctest FOLDER OPTION...: adds to the counts
  local folder=$1 report
  shift
  report=$folder/report.xml
  ctest --test-dir "$folder" -j2 --output-on-failure --output-junit "$report" "$@"
  eval "$(python3 - "$report" <<'PYTHON'
import sys, xml.etree.ElementTree as tree
cases = tree.parse(sys.argv[1]).getroot().findall("testcase")
count = lambda test: sum(1 for case in cases if test(case))
skipped = count(lambda c: c.find("skipped") is not None or c.get("status") == "notrun")
failed = count(lambda c: c.find("failure") is not None)
print(f"ran={len(cases)} bad={failed} left={skipped}")
PYTHON
)"
  passed=$((passed + ran - bad - left)) failed=$((failed + bad)) skipped=$((skipped + left))
}

# CUDA kernels run on the CPU in every build; nvcc sees them once: here or, in full, in "cuda" below.
note "release build and all tests"
if build "$root/build/tests" -DCMAKE_BUILD_TYPE=Release -DPADDOCK_BUILD_TESTS=ON -DPADDOCK_WERROR=ON; then
  # The consumer projects build the library three times over: not at every call.
  # Neither do kernels meet nvcc twice: "cuda" below has a look at them.
  if [ -n "$full" ]; then
    run_ctest "$root/build/tests" -E '^kernels.nvcc$'
  else
    run_ctest "$root/build/tests" -LE install
  fi
else
  failed=$((failed + 1))
fi

if [ -n "$full" ]; then
  # For its warnings: what it optimises is nobody's here.
  [ -n "$whole" ] && step "clang: library and tool without warnings" build "$root/build/clang" \
    -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O0 \
    -DPADDOCK_BUILD_TESTS=OFF -DPADDOCK_WERROR=ON
  if command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ]; then
    step "cuda: library and tool without warnings" bash "$root/tests/install/cuda.sh" "$root/build/cuda" \
      "$([ -n "$whole" ] || echo 90-real)"
  else
    note "SKIPPED: no nvcc, the CUDA backend was not compiled"
    skipped=$((skipped + 1))
  fi
  [ -n "$whole" ] && step "aarch64: library under emulation" bash "$root/tests/install/aarch64.sh"
  fuzz() { # every target for twenty seconds: that they build and run, not that nothing is left to find
    local target corpus targets="fuzz_gguf fuzz_safetensors fuzz_tokenizer"
    build "$root/build/fuzz" -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_BUILD_TYPE=RelWithDebInfo \
      -DPADDOCK_BUILD_EXAMPLES=OFF -DPADDOCK_BUILD_FUZZERS=ON -DPADDOCK_SANITIZE=address,undefined || return 1
    for target in gguf safetensors tokenizer; do
      corpus=$(mktemp -d)
      (cd "$corpus" && "$root/build/fuzz/tests/fuzz_$target" "$corpus" \
        "$root/tests/hostile/inputs/$target" -max_len=8192 -timeout=10 -max_total_time=20) || return 1
      rm -rf "$corpus"
    done
  }
  [ -n "$whole" ] && step "fuzz targets" fuzz  # the inputs they found are in every run
  # Sanitized builds make only the programs they run, with little optimisation: they are most of the time.
  light=(-DCMAKE_BUILD_TYPE=RelWithDebInfo "-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O1 -g1 -DNDEBUG"
    -DPADDOCK_BUILD_EXAMPLES=OFF)
  note "address and undefined behaviour sanitizers"
  if targets="tokenizer_test tokenizer_hostile_test files_hostile_test kernels_test core_test cache_test
    eviction_test sampling_test engine_test ${whole:+policy_test stats_test conformance_test field_reports_test}" \
    build "$root/build/asan" "${light[@]}" -DPADDOCK_SANITIZE=address,undefined -DPADDOCK_POISON=ON; then
    run_ctest "$root/build/asan" -LE "real|install|slow|simt" -E "NOT_BUILT|nvcc"
  else
    failed=$((failed + 1))
  fi
  note "thread sanitizer"
  if targets="core_test engine_test runner_test field_reports_test" build "$root/build/tsan" "${light[@]}" -DPADDOCK_SANITIZE=thread; then
    run_ctest "$root/build/tsan" -L threads
  else
    failed=$((failed + 1))
  fi
fi

# Random schedules from new seeds: a minute in CI, half an hour with --long; seconds in every run.
if [ -n "${CI:-}$whole$long" ]; then
  step "random schedules" env PADDOCK_FUZZ_SECONDS="$([ -n "$long" ] && echo 1800 || echo 60)" \
    "$root/build/tests/tests/schedule_test" --gtest_filter='ScheduleFuzz.*'
fi
if [ -n "$long" ]; then
  step "random schedules of elastic rules" env PADDOCK_SEEDS=4000 \
    "$root/build/tests/tests/elastic_test" --gtest_filter='ElasticSchedules.*'
  step "random schedules of elastic rules beside an oracle" env PADDOCK_SEEDS=1000 \
    "$root/build/tests/tests/dense_test" --gtest_filter='*ElasticDense.AnyOrder*'
  step "random budgets of live engines" env PADDOCK_SEEDS=4000 \
    "$root/build/tests/tests/budget_test" --gtest_filter='BudgetSchedules.*'
  step "faults that the tests must notice" python3 "$root/tests/mutants/run.py"
fi

# Tests of real files fail by themselves in CI where the files are missing; what is skipped there is an
# instruction set that the processor lacks, and the shared library.
[ "$skipped" -gt 0 ] && echo "NOTE: $skipped tests were skipped (see above)"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
