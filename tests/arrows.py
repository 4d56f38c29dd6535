#!/usr/bin/env python3
"""Checks that includes only run down the house that docs/architecture.md draws, and that it draws so."""
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# Who may know whom. Every room may know itself, src/core, and the public headers named here; "*": all.
MAY = {
    "core": ([], ["error", "log", "version"]),
    "io": ([], []),
    "text": (["io"], ["chat", "tokenizer", "engine"]),  # of engine.h one plain struct: an answer
    "eviction": ([], ["eviction"]),
    "report": ([], ["engine", "engine_stats", "kv_cache", "stats"]),
    "trace": ([], ["engine", "eviction", "kv_cache", "stats", "trace"]),
    "kv": (["eviction", "kernels", "trace/observer.h"], ["eviction", "kv_cache", "reclaim", "stats"]),
    "backend": (["kernels"], ["stats"]),
    "model": (["backend", "io", "text", "kernels"], ["model"]),
    "replay": (["kv", "io"], ["reclaim", "replay"]),
    "engine": (["model", "backend", "kv", "kernels", "trace"], "*"),
    "diagnose": (["engine", "kv", "eviction"], "*"),
    "kernels": ([], []),
}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)


def room_of(path):
    parts = path.split("/")
    return "kernels" if parts[0] == "kernels" else parts[1]


def target_of(name):
    first = name.split("/")[0]
    if first in MAY and os.path.exists(os.path.join(ROOT, "src", name)):
        return first
    if os.path.exists(os.path.join(ROOT, "kernels", name)):
        return "kernels"
    return first


def check_drawing():
    """The arrows in docs/architecture.md are those of MAY, and point down."""
    with open(os.path.join(ROOT, "docs/architecture.md"), encoding="utf-8") as f:
        drawing = f.read().split("## Rooms")[1].split("```")[1]
    drawn = {}
    for line in drawing.strip().splitlines():
        room, _, arrows = line.partition("->")
        drawn[room.split()[0].removeprefix("src/")] = {word for word in re.findall(r"\w+", arrows) if word in MAY}
    order = list(drawn)
    wrong = [f"the drawing has the rooms {sorted(order)}, the table MAY {sorted(MAY)}"] if set(order) != set(MAY) else []
    for room in MAY if not wrong else ():
        may = {name.split("/")[0] for name in MAY[room][0]}
        if drawn[room] != may:
            wrong.append(f"{room}: drawn are arrows to {sorted(drawn[room])}, the table MAY has {sorted(may)}")
        wrong += [f"{room}: the arrow to {other} points up" for other in may if order.index(other) < order.index(room)]
    return wrong


def main():
    wrong = check_drawing()
    files = 0
    for top in ("src", "kernels"):
        for folder, _, names in os.walk(os.path.join(ROOT, top)):
            for name in sorted(names):
                if not name.endswith((".h", ".cpp", ".cu")):
                    continue
                path = os.path.relpath(os.path.join(folder, name), ROOT)
                room = room_of(path)
                rooms, headers = MAY[room]
                files += 1
                with open(os.path.join(ROOT, path), encoding="utf-8") as f:
                    included = INCLUDE.findall(f.read())
                for other in included:
                    beside = os.path.join(os.path.dirname(os.path.join(ROOT, path)), other)
                    target = room if os.path.exists(beside) else target_of(other)
                    if target == "core" and room != "kernels":
                        continue
                    if target == "paddock":
                        header = other.split("/")[1].removesuffix(".h")
                        if headers == "*" or header in headers or header in ("error", "export", "log"):
                            continue
                    if target == room or target in rooms or other in rooms or (target == "kernels" and other == "dtype.h"):
                        continue
                    wrong.append(f"{path} includes {other}: {room} may not know {target}")
    print("\n".join(wrong) if wrong else f"{files} files: no include runs up")
    return 1 if wrong or files < 100 else 0


if __name__ == "__main__":
    sys.exit(main())
