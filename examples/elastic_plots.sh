#!/usr/bin/env bash
# elastic_plots.sh TEXT QUALITY.svg CHATS.svg: what elastic rules keep of a text's quality in pools of several
# sizes, beside their fixed twins; and what four chats keep in one pool, beside a quarter of it each. Markdown
# tables on stdout, a plot in each file. MODEL, THREADS (1), PADDOCK (the tool) and FOUR_CHATS (the program that
# `ninja four_chats` makes) may be set in the environment. RESULTS=FILE keeps what is measured there: who stops it
# goes on from there the next time. Without FOUR_CHATS the second plot is left out.
set -u
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ $# -eq 3 ] || { echo "usage: elastic_plots.sh TEXT QUALITY.svg CHATS.svg" >&2; exit 2; }
export PADDOCK=${PADDOCK:-$root/build/release/examples/paddock}
[ -x "$PADDOCK" ] || { echo "error: $PADDOCK is not there; run examples/quickstart.sh first" >&2; exit 1; }
MODEL=${MODEL:-$(bash "$root/examples/fetch_model.sh" smollm2)} || exit 1
export MODEL THREADS=${THREADS:-1} RESULTS=${RESULTS:-} FOUR_CHATS=${FOUR_CHATS:-}
exec python3 - "$@" <<'PYTHON'
import json, math, os, subprocess, sys

TEXT, QUALITY, CHATS = sys.argv[1:]
TOKENS = 2048
BUDGETS = [128, 256, 512, 1024]
SLACK = 96  # what a fixed budget needs beside itself: up to a decision, and two blocks
POOLS = [1024, 2048]  # positions, for four chats of 256, 512, 1024 and 1900
CHAT_RULES = ["lru", "h2o", "sink:4"]
# Elastic, fixed, and what the fixed one gets less: sinks beside its window; two blocks that layers with shares need.
RULES = [("lru", "lru:{}", 0), ("h2o", "h2o:{}", 0), ("cake:h2o", "cake:h2o:{}", 16), ("sink:4", "sink:4+{}", 4)]
COLOURS = {"lru": "#0072B2", "h2o": "#D55E00", "cake:h2o": "#009E73", "sink:4": "#CC79A7"}
known = json.load(open(os.environ["RESULTS"])) if os.path.exists(os.environ["RESULTS"]) else {}

def measured(name, fn):
    if name not in known:
        known[name] = fn()
        print(f"done: {name}", file=sys.stderr)
        if os.environ["RESULTS"]:
            with open(os.environ["RESULTS"], "w") as file:
                json.dump(known, file, indent=0)
    return known[name]

def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit("error: " + " ".join(command) + "\n" + done.stderr)
    return done.stdout

def perplexity(rule, positions):
    pool = [] if positions == 0 else ["--kv-budget", str(positions * BYTES)]
    return json.loads(run([os.environ["PADDOCK"], "perplexity", "-m", os.environ["MODEL"], "-f", TEXT, "--first",
                           str(TOKENS), "-c", str(TOKENS), "-b", "64", "-t", os.environ["THREADS"], "--kv-policy",
                           rule, "--json"] + pool))["perplexity"]

def position_bytes():
    made = json.loads(run([os.environ["PADDOCK"], "generate", "-m", os.environ["MODEL"], "-p", "a", "-n", "1", "-c",
                           "64", "--json"]))["kv"]
    return made["page_bytes"] * made["pages_per_block"] // made["block_size"]

def chats(rule, positions):
    """(in one pool, in a quarter each): perplexity over all four."""
    rows = run([os.environ["FOUR_CHATS"], os.environ["MODEL"], TEXT, str(positions), rule]).splitlines()[2:]  # under a head
    return [float(row.split("|")[7]) for row in rows]

def marks(low, high):
    step = next(s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if (high - low) / s <= 7)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]

def plot(path, title, lines, full, x_name):
    """lines: (name, colour, is it dashed, [(x, y)])."""
    width, height, left, top, bottom, legend = 560, 380, 56, 46, 46, 210
    ys = [y for _, _, _, points in lines for _, y in points] + [full]
    xs = [x for _, _, _, points in lines for x, _ in points]
    low, high = min(ys) - 0.03 * (max(ys) - min(ys)), max(ys) + 0.03 * (max(ys) - min(ys))
    first, last = math.log(min(xs) / 1.06), math.log(max(xs) * 1.06)
    x = lambda v: left + (math.log(v) - first) / (last - first) * (width - left)
    y = lambda v: height - bottom - (v - low) / (high - low) * (height - bottom - top)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width + legend} {height}" font-family="sans-serif" '
           'font-size="13" fill="#222222"><rect width="100%" height="100%" fill="white"/>',
           f'<text x="{left}" y="22" font-weight="bold">{title}</text>']
    for value in marks(low, high):
        out.append(f'<line x1="{left}" x2="{width}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#e3e3e3"/>'
                   f'<text x="{left - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in sorted(set(xs)):
        out.append(f'<line x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{top}" y2="{height - bottom}" stroke="#e3e3e3"/>'
                   f'<text x="{x(value):.1f}" y="{height - bottom + 18}" text-anchor="middle">{value:.1f}</text>')
    out.append(f'<text x="{(left + width) / 2}" y="{height - 8}" text-anchor="middle">{x_name}</text>')
    out.append(f'<line x1="{left}" x2="{width}" y1="{y(full):.1f}" y2="{y(full):.1f}" stroke="#444444" '
               'stroke-dasharray="6 4"/>')
    for k, (name, colour, dashed, points) in enumerate([("full", "#444444", True, [])] + lines):
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        path_text = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
        at = 60 + 22 * k
        out.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2"{dash} points="{path_text}"/>'
                   f'<line x1="{width + 14}" x2="{width + 44}" y1="{at - 4}" y2="{at - 4}" stroke="{colour}" '
                   f'stroke-width="2"{dash}/><text x="{width + 52}" y="{at}">{name}</text>')
        for a, b in points:
            out.append(f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3.5" stroke="{colour}" '
                       f'fill="{"white" if dashed else colour}"><title>{name}, {a:.1f} MiB: {b:.2f}</title></circle>')
    with open(path, "w") as file:
        file.write("\n".join(out + ["</svg>"]) + "\n")

BYTES = measured("bytes of a position", position_bytes)
mib = lambda positions: positions * BYTES / 2**20
full = measured("full", lambda: perplexity("full", 0))
print(f"`full`: {full:.2f}\n\n| rule | " + " | ".join(f"{mib(b + SLACK):.1f} MiB (B = {b})" for b in BUDGETS) + " |\n|---|" + "---|" * len(BUDGETS))
lines = []
for elastic, fixed, sinks in RULES:
    for form, dashed in ((elastic, False), (fixed, True)):
        points = []
        for b in BUDGETS:
            rule = form.format(b - sinks)
            points.append((mib(b + SLACK), measured(f"{rule} in {b + SLACK}", lambda: perplexity(rule, b + SLACK))))
        shown = form.format("B" if sinks == 0 else f"(B-{sinks})")
        print(f"| `{shown}` | " + " | ".join(f"{p:.2f}" for _, p in points) + " |")
        lines.append((shown, COLOURS[elastic], dashed, points))
plot(QUALITY, f"Perplexity of {TOKENS} tokens, by the size of the pool", lines, full, "MiB of keys and values")
if os.environ["FOUR_CHATS"]:
    full_chats = measured("full, four chats", lambda: chats("full", 4 * 2048)[0])
    print(f"\n`full`: {full_chats:.2f}\n\n| rule | where | " + " | ".join(f"{mib(n):.1f} MiB" for n in POOLS) + " |\n|---|---|" + "---|" * len(POOLS))
    lines = []
    for elastic in CHAT_RULES:
        pairs = [(n, measured(f"four chats, {elastic} in {n}", lambda: chats(elastic, n))) for n in POOLS]
        for i, where in enumerate(("one pool", "a quarter each")):
            points = [(mib(n), pair[i]) for n, pair in pairs]
            print(f"| `{elastic}` | {where} | " + " | ".join(f"{p:.2f}" for _, p in points) + " |")
            lines.append((f"{elastic}, {where}", COLOURS[elastic], i == 1, points))
    plot(CHATS, "Perplexity of four chats together, by the size of the pool", lines, full_chats, "MiB of keys and values")
PYTHON
