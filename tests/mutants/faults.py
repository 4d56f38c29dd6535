"""The lists of faults, and how all of them become switches in one copy of the sources.

A list is a Python file beside this one; its name is an area. It calls

    source("src/kv/trim.cpp", "stats_test eviction_test")
        the file that what follows speaks of, and the programs that should notice, tried in this order;
        stats_test:Events.* for some tests of one
    fault("kv-001", "what a user or a reader would call it", anchor, replacement, tests="...")
        a fault that the tests must notice; `tests` in place of those of source()
    same("kv-002", "what it is", anchor, replacement, "why nobody can see it", tests="...")
        a change that is no fault: a test that notices it is wrong

An anchor is text that its file holds exactly once; a space stands for any white space. «...» in it marks
what the replacement replaces: an expression, or a statement with its semicolon (which "" leaves out; it
must not declare what is used later), or nothing, where a statement is put in. Without marks the replacement is the whole text, with MUT where the
fault is switched on: "if (!MUT) count();". Give a fault the next free number and never another one's.
"""
import os
import re
from dataclasses import dataclass, field

HERE = os.path.dirname(os.path.abspath(__file__))
SWITCH = '''// Written by tests/mutants/run.py: which fault is switched on, if any.
#pragma once
#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <type_traits>
namespace paddock_mutant {
constexpr uint64_t hash(const char* s) {
  uint64_t h = 14695981039346656037U;
  for (; *s != 0; ++s) h = (h ^ static_cast<unsigned char>(*s)) * 1099511628211U;
  return h;
}
inline const uint64_t chosen = [] {
  const char* name = std::getenv("PADDOCK_MUTANT");
  return name == nullptr || *name == 0 ? 0 : hash(name);
}();
/// Where the switches that are passed are written, eight bytes each, or -1.
inline const int reached = [] {
  const char* file = std::getenv("PADDOCK_MUTANTS_REACHED");
  return file == nullptr ? -1 : ::open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
}();
inline const bool asks = chosen != 0 || reached >= 0;
template <uint64_t n>
[[gnu::noinline]] bool look() {
  static bool is_written = false;
  if (reached >= 0 && !__atomic_exchange_n(&is_written, true, __ATOMIC_RELAXED)) {
    const uint64_t id = n;
    if (::write(reached, &id, sizeof(id)) < 0) std::abort();
  }
  return chosen == n;
}
template <uint64_t n>
[[gnu::always_inline]] inline bool on() {
  return __builtin_expect(asks, 0) != 0 && look<n>();
}
}  // namespace paddock_mutant
#define PADDOCK_MUT(name) paddock_mutant::on<paddock_mutant::hash(name)>()
'''


class Stale(Exception):
    """Lists that do not fit the sources."""


@dataclass
class Fault:
    id: str
    area: str
    file: str
    what: str
    anchor: str
    replacement: str
    tests: list
    same: str = ""  # why nobody can see it


@dataclass
class Edit:
    begin: int
    end: int
    fault: Fault
    kind: str  # "expression", "statement" or "text"
    text: str
    order: int
    inner: list = field(default_factory=list)


def areas():
    return sorted(f[:-3] for f in os.listdir(HERE) if f.endswith(".py") and f not in ("run.py", "faults.py"))


def load():
    """All faults of all lists, in order."""
    faults, at = [], {}

    def source(file, tests):
        at.update(file=file, tests=tests)

    def fault(name, what, anchor, replacement, tests=None, same=""):
        faults.append(Fault(name, at["area"], at["file"], what, anchor, replacement,
                            (tests or at["tests"]).split(), same))

    def same(name, what, anchor, replacement, why, tests=None):
        fault(name, what, anchor, replacement, tests, why)

    for area in areas():
        at["area"] = area
        path = os.path.join(HERE, area + ".py")
        with open(path, encoding="utf-8") as f:
            exec(compile(f.read(), path, "exec"), {"source": source, "fault": fault, "same": same})
    seen = set()
    twice = [f.id for f in faults if f.id in seen or seen.add(f.id)]
    if twice:
        raise Stale("given to two faults: " + ", ".join(twice))
    known = programs()
    for f in faults:
        for name in {test.partition(":")[0] for test in f.tests}:
            if not known.fullmatch(name):
                raise Stale(f"{f.id}: no program of tests is called {name}")
    return faults


def programs():
    """Matches the names of the test programs, as CMake's lists have them; ${name} in them may be anything."""
    names = []
    for file in ("CMakeLists.txt", "cuda.cmake"):
        with open(os.path.join(os.path.dirname(HERE), file), encoding="utf-8") as f:
            names += re.findall(r"^ *paddock(?:_\w+)?_test\(([\w${}]+)", f.read(), re.M)
    return re.compile("|".join(re.sub(r"\$\{\w+\}", r"\\w+", name) for name in names if name != "${name}"))


def find(fault, text):
    """Begin and end of each part of the anchor around its marks, in the text of its file."""
    plain = fault.anchor.replace("«", "").replace("»", "")
    pattern = r"\s+".join(re.escape(word) for word in re.split(r"\s+", plain))
    found = list(re.finditer(pattern, text))
    if len(found) != 1:
        where = f"{fault.id}: {fault.file} holds {plain!r}"
        raise Stale(f"{where} no more: give it the anchor that the code has now" if not found else
                    f"{where} {len(found)} times: make the anchor longer")
    # Offsets in the anchor to offsets in the file: white space may differ in length.
    at, offsets, i = found[0].start(), [], 0
    while i < len(plain):
        offsets.append(at)
        if plain[i].isspace():
            while i + 1 < len(plain) and plain[i + 1].isspace():
                i += 1
                offsets.append(at)
            while at < len(text) and text[at].isspace():
                at += 1
        else:
            at += 1
        i += 1
    offsets.append(at)
    return plain, offsets


def has_comma(expression):
    """Whether a comma stands outside all brackets and strings: behind "?" and ":" it would be an operator."""
    plain = re.sub(r'"(\\.|[^"\\])*"|\'(\\.|[^\'\\])*\'', "", expression)
    while (inner := re.sub(r"\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\}|<[\w:, ]*>", "", plain)) != plain:
        plain = inner
    return "," in plain


def edit(fault, text, order):
    plain, offsets = find(fault, text)
    if "«" in fault.anchor:
        begin = fault.anchor.index("«")
        end = fault.anchor.index("»") - 1
        marked = plain[begin:end].strip()
        kind = "statement" if not marked or ";" in marked and marked[-1] in ";}" else "expression"
        if re.search(r"\bMUT\b", fault.replacement):
            raise Stale(f"{fault.id}: marks what MUT would switch, too; leave one of them out")
        if kind == "expression" and re.search(r";$|^\{", fault.replacement.strip()):
            raise Stale(f"{fault.id}: an expression is replaced by {fault.replacement!r}, which is none")
        if kind == "expression" and (has_comma(marked) or has_comma(fault.replacement)):
            raise Stale(f"{fault.id}: marks more than one expression; mark one, or put MUT in the replacement")
        if kind == "statement" and re.match(r"(?!return|throw|delete|else|if|for|while)(const )?[\w:<>]+ \w+[({;]",
                                            marked):
            raise Stale(f"{fault.id}: marks a declaration, which would end at once; put MUT in the replacement")
        if kind == "statement" and fault.replacement and fault.replacement.rstrip()[-1] not in ";}":
            raise Stale(f"{fault.id}: a statement is replaced by {fault.replacement!r}, which ends in no semicolon")
        if any(re.match(r"\w\w", text[at - 1:at + 1]) for at in (offsets[begin], offsets[end])):
            raise Stale(f"{fault.id}: marks a part of a word; mark all of it")
        return Edit(offsets[begin], offsets[end], fault, kind, fault.replacement, order)
    new = fault.replacement
    if not re.search(r"\bMUT\b", new):
        raise Stale(f"{fault.id}: neither marks «...» in the anchor nor MUT in the replacement")
    begin = 0
    while begin < min(len(plain), len(new)) and plain[begin] == new[begin]:
        begin += 1
    end = 0
    while end < min(len(plain), len(new)) - begin and plain[-1 - end] == new[-1 - end]:
        end += 1
    inserted = new[begin:len(new) - end]
    return Edit(offsets[begin], offsets[len(plain) - end], fault, "text", inserted, order)


def render(text, begin, end, edits):
    """text[begin:end] with its edits, each of which lies inside another or apart from it."""
    out, at = [], begin
    for e in edits:
        out.append(text[at:e.begin])
        switch = f'PADDOCK_MUT("{e.fault.id}")'
        if e.kind == "text":
            out.append(re.sub(r"\bMUT\b", lambda _: switch, e.text))
        else:
            old = render(text, e.begin, e.end, e.inner)
            if e.kind == "expression":
                out.append(f"({switch} ? ({e.text}) : ({old}))")
            else:
                out.append(f"if ({switch}) {{ {e.text} }} else {{ {old} }}")
        at = e.end
    out.append(text[at:end])
    return "".join(out)


def mutate(file, text, faults):
    """The file with all its faults as switches, and what keeps some of them from it."""
    edits, wrong = [], []
    for order, fault in enumerate(faults):
        try:
            edits.append(edit(fault, text, order))
        except Stale as e:
            wrong.append(str(e))
    # Outer ones first; an insertion lies before what begins where it does.
    edits.sort(key=lambda e: (e.begin, 0 if e.begin == e.end else 1, -e.end, e.order))
    top, open_ = [], []
    for e in edits:
        while open_ and open_[-1].end <= e.begin:
            open_.pop()
        if open_ and (e.end > open_[-1].end or open_[-1].kind == "text"):
            wrong.append(f"{e.fault.id}: overlaps {open_[-1].fault.id} in {file}")
            continue
        (open_[-1].inner if open_ else top).append(e)
        if e.end > e.begin:
            open_.append(e)
    return render(text, 0, len(text), top), wrong


def rewrite(root, faults):
    """{file: mutated text}. Error Stale naming every fault whose anchor does not fit."""
    by_file = {}
    for fault in faults:
        by_file.setdefault(fault.file, []).append(fault)
    out, wrong = {}, []
    for file, its in by_file.items():
        try:
            with open(os.path.join(root, file), encoding="utf-8") as f:
                text = f.read()
        except FileNotFoundError:
            wrong += [f"{fault.id}: there is no {file} any more" for fault in its]
            continue
        out[file], bad = mutate(file, text, its)
        wrong += bad
    if wrong:
        raise Stale("\n".join(wrong))
    return out
