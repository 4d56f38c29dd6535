#!/usr/bin/env bash
# chatbot_case.sh [FILE.svg]: a long conversation with a support desk, once under each way of keeping its cache
# small: response time turn by turn, memory, and what is still known at the end. A Markdown table on stdout, a
# plot in FILE.svg if one is named. MODEL, THREADS (all cores) and PADDOCK (the tool) may be set in the environment.
set -u
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PADDOCK=${PADDOCK:-$root/build/release/examples/paddock}
[ -x "$PADDOCK" ] || { echo "error: $PADDOCK is not there; run examples/quickstart.sh first" >&2; exit 1; }
MODEL=${MODEL:-$(bash "$root/examples/fetch_model.sh" smollm2)} || exit 1
export MODEL THREADS=${THREADS:-0}
exec python3 - "$@" <<'PYTHON'
import json, os, subprocess, sys, tempfile

SYSTEM = "You are a support desk. You answer each question in one short sentence."
FACTS = [("Remember this: the order number of Martha is 4821.", "What is the order number of Martha?", "4821"),
         ("Remember this: the city of Peter is Bergen.", "What is the city of Peter?", "Bergen"),
         ("Remember this: the kettle of Olga is a Nordlys.", "What is the kettle of Olga?", "Nordlys"),
         ("Remember this: the colour of Hassan is green.", "What is the colour of Hassan?", "green")]
TALK = ["It has been raining here since Sunday, and the cellar is wet again. Why does it rain?",
        "My brother wants to buy a car and cannot decide on a colour. What is the colour of the sky?",
        "My children would like pancakes on Saturday morning. What does one need for pancakes?",
        "We went to the zoo last week, and the youngest was afraid. How many legs does a spider have?",
        "I read a lot in winter, mostly old plays by the fire. Who wrote Hamlet?",
        "My football team lost again on the weekend, by three goals. How many players has a team?",
        "The window of our kitchen goes to the north, and it is dark. Which plants need little sun?",
        "We saw the moon from the balcony, it was large and yellow. How far away is the moon?",
        "My daughter learns the names of cities at school just now. What is the capital of France?",
        "It was so hot in the train that nobody could sleep or read. What is the opposite of hot?",
        "My neighbour cleans everything with vinegar, once a month. What is vinegar made of?",
        "We are going to visit friends by the sea in the summer. Why is the sea salty?",
        "The receipt was in the box with the presents of my mother. What is a good present?",
        "My son asked me something about numbers, and I was not sure. What is seven times eight?",
        "There was a long film about birds on television last night. Why do birds fly south?",
        "We had bread and soup for dinner, and everybody was content. What is bread made of?"]
LIMIT = "256"
WAYS = [("everything stays (`full`)", []),
        ("every turn is read anew, as without a cache", None),
        ("`--keep turns:6`", ["--keep", "turns:6"]),
        ("`--keep turns:6`, `/pin` of the turns with facts", ["--keep", "turns:6"]),
        ("`--keep drop-irrelevant:6`", ["--keep", "drop-irrelevant:6"]),
        ("`--keep summarise:6`", ["--keep", "summarise:6"]),
        ("`--kv-policy sink:4+252`", ["--kv-policy", "sink:4+252"]),
        ("`--kv-policy h2o:" + LIMIT + "`", ["--kv-policy", "h2o:" + LIMIT]),
        ("`--kv-policy h2o:" + LIMIT + "@sinks:176@recent:48`", ["--kv-policy", "h2o:" + LIMIT + "@sinks:176@recent:48"]),
        ("`--kv-policy lru --kv-budget 6MiB`", ["--kv-policy", "lru", "--kv-budget", "6MiB"])]

def messages(pins=False):
    lines = [fact for fact, _, _ in FACTS]
    if pins:  # each once it is answered
        lines = [line for i, fact in enumerate(lines) for line in (fact, f"/pin {i + 1}")]
    return lines + TALK + [question for _, question, _ in FACTS]

def run(command, text=""):
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit("error: " + " ".join(command) + "\n" + done.stderr)
    return done

def chat(options, pins):
    done = run([os.environ["PADDOCK"], "chat", "-m", os.environ["MODEL"], "-t", os.environ["THREADS"], "--temp", "0",
                "--system", SYSTEM,
                "-n", "32", "-c", "8192", "--json"] + options, "\n".join(messages(pins)) + "\n")
    turns = [json.loads(line) for line in done.stdout.splitlines()]
    return turns, [line for line in done.stderr.splitlines() if "left out" in line]

def anew():
    """Each turn as one prompt of its own, the whole conversation in it."""
    text = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"
    turns = []
    for message in messages():
        text += f"<|im_start|>user\n{message}<|im_end|>\n<|im_start|>assistant\n"
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as prompt:
            prompt.write(text)
            prompt.flush()
            made = json.loads(run([os.environ["PADDOCK"], "generate", "-m", os.environ["MODEL"], "-t",
                                   os.environ["THREADS"], "--temp", "0", "-n", "32", "-c", "8192", "--json", "-f",
                                   prompt.name]).stdout)
        text += made["text"] + "<|im_end|>\n"
        times = made["timings"]
        turns.append({"text": made["text"], "conversation_tokens": made["prompt_tokens"] + len(made["tokens"]),
                      "first_token_seconds": times["prefill_seconds"],
                      "seconds": times["prefill_seconds"] + times["decode_seconds"],
                      "kv_bytes": made["kv"]["total"]["pages_peak"] * made["kv"]["page_bytes"]})
    return turns, []

def median(values):
    values = sorted(values)
    return values[len(values) // 2]

def plot(path, rows):
    width, height, left, bottom = 860, 380, 60, 40
    top = max(max(t["seconds"] for t in turns) for _, turns, _ in rows)
    n = len(messages())
    colours = ["#4c72b0", "#c44e52", "#55a868", "#8172b2", "#ccb974", "#64b5cd", "#8c8c8c", "#dd8452", "#937860",
               "#da8bc3"]
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width + 300} {height + 40}" font-family="sans-serif" '
           'font-size="13"><rect width="100%" height="100%" fill="white"/>',
           f'<text x="{left}" y="18">seconds until an answer of up to 32 tokens is complete, by turn</text>']
    x = lambda i: left + i * (width - left) / (n - 1)
    y = lambda s: height - bottom - s / top * (height - bottom - 40)
    for tick in range(5):
        value = top * tick / 4
        out.append(f'<line x1="{left}" x2="{width}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#dddddd"/>'
                   f'<text x="8" y="{y(value) + 4:.1f}">{value:.2f}</text>')
    for i in range(0, n, 4):
        out.append(f'<text x="{x(i) - 4:.1f}" y="{height - 14}">{i + 1}</text>')
    for k, (name, turns, _) in enumerate(rows):
        points = " ".join(f'{x(i):.1f},{y(t["seconds"]):.1f}' for i, t in enumerate(turns))
        out.append(f'<polyline fill="none" stroke="{colours[k]}" stroke-width="2" points="{points}"/>'
                   f'<text x="{width + 12}" y="{60 + 22 * k}" fill="{colours[k]}">{name.replace("`", "")}</text>')
    with open(path, "w") as file:
        file.write("\n".join(out + ["</svg>"]) + "\n")

rows = []
for name, options in WAYS:
    turns, notes = anew() if options is None else chat(options, "/pin" in name)
    rows.append((name, turns, notes))
    print(f"done: {name}", file=sys.stderr)
first = 3 * len(messages()) // 4
print(f"| what stays | answer, first {len(FACTS)} turns | last quarter | first token there | tokens at the end "
      f"| KV in use | known at the end |\n|---|---:|---:|---:|---:|---:|---|")
for name, turns, _ in rows:
    asked = turns[-len(FACTS):]
    known = [word for (_, _, word), turn in zip(FACTS, asked) if word.lower() in turn["text"].lower()]
    print(f"| {name} | {median([t['seconds'] for t in turns[:len(FACTS)]]):.2f} s "
          f"| {median([t['seconds'] for t in turns[first:]]):.2f} s "
          f"| {median([t['first_token_seconds'] for t in turns[first:]]):.2f} s "
          f"| {turns[-1]['conversation_tokens']} | {turns[-1]['kv_bytes'] / 2**20:.1f} MiB | {len(known)} of {len(FACTS)}: {', '.join(known) or '-'} |")
if len(sys.argv) > 1:
    plot(sys.argv[1], rows)
PYTHON
