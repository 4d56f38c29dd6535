#!/usr/bin/env bash
# policy_table.sh TEXT [OPTION...]: what every rule costs on a text of yours, at budgets of 128, 256, 512
# and 1024 positions, as a Markdown table on stdout. Options go to `paddock perplexity`, such as --svg FILE.
# MODEL, TOKENS (3000), THREADS (all cores) and PADDOCK (the tool) may be set in the environment.
set -u
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ $# -ge 1 ] || { echo "usage: policy_table.sh TEXT [OPTION...]" >&2; exit 2; }
text=$1
shift
paddock=${PADDOCK:-$root/build/release/examples/paddock}
[ -x "$paddock" ] || { echo "error: $paddock is not there; run examples/quickstart.sh first" >&2; exit 1; }
model=${MODEL:-$(bash "$root/examples/fetch_model.sh" smollm2)} || exit 1
tokens=${TOKENS:-3000}
sweep=()
for rule in window sink lru h2o tova knorm pyramid:h2o cake:h2o snapkv random; do
  for budget in 128 256 512 1024; do
    case $rule in
      sink) sweep+=(--sweep "sink:4+$((budget - 4))") ;;
      *) sweep+=(--sweep "$rule:$budget") ;;
    esac
  done
done
# snapkv decides once, where the prompt ends: after two thirds of the text.
exec "$paddock" perplexity -m "$model" -f "$text" --first "$tokens" --prompt-tokens $((tokens * 2 / 3)) \
  --threads "${THREADS:-0}" --facts 10 "${sweep[@]}" "$@"
