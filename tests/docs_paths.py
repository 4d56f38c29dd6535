#!/usr/bin/env python3
"""Checks what the documents name: the files, functions and tests of docs/architecture.md are there, every
command of the tool stands in README.md and in the table of docs/cli.md, every command of a chat in its table
there, and numbers that the documents tell are those of the code."""
import fnmatch
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOPS = ("include", "src", "kernels", "tests", "examples", "docs")
FILE = re.compile(r"[\w.*+/-]*\.(?:cpp|h|cu|py|md|sh|json|cmake|txt)\b")
# What is code: calls, what has a scope, constants, types of two words. Words of users and options are none.
CODE = re.compile(r"^(?:[A-Za-z_]\w*(?:(?:::|\.)\w+)*(?:\(\))|\w+(?:::\w+)+(?:\(\))?|k[A-Z]\w+|[A-Z][a-z]+[A-Z]\w+)$")
TEST = re.compile(r"^([A-Z]\w+)\.([A-Z]\w+)$")
# "`a()`, `b()` and `kC` in `file`": names, and where they are said to stand.
PAIR = re.compile(r"((?:`[\w:]+(?:\(\))?`,?(?:\s+(?:and|or))?\s+)+)in\s+`([^`\n]+)`")
# What documents say of a constant: its file, its name, the document, and the words around the number.
NUMBERS = [
    ("src/engine/scheduler.cpp", "kStepsPerLevel", "docs/scheduling.md", "{} steps of waiting count as one level"),
    ("src/engine/scheduler.cpp", "kStepsPerLevel", "include/paddock/engine.h", "{} steps of waiting count"),
    ("src/engine/admission.cpp", "kMaxPassed", "docs/scheduling.md", "behind it that do, {} times"),
    ("src/engine/admission.cpp", "kMaxBlocked", "docs/scheduling.md", "A step looks at {} that do not fit"),
    ("src/kv/prefix_tree.cpp", "kRememberedTimes", "docs/kv-cache.md", "{} times as many are remembered"),
    ("src/kv/prefix_tree.cpp", "kLeastRemembered", "docs/kv-cache.md", "has room for, at least {} and"),
    ("src/kv/prefix_tree.cpp", "kMostRemembered", "docs/kv-cache.md", "at most {}, by a hash"),
    ("src/kv/prefix_tree.cpp", "kCompared", "docs/kv-cache.md", "with the {} that came last"),
    ("src/kv/prefix_tree.cpp", "kRememberedTimes", "include/paddock/kv_cache.h", "for {} times as many blocks"),
    ("src/kv/prefix_tree.cpp", "kLeastRemembered", "include/paddock/kv_cache.h", "kept, at least {} and"),
    ("src/kv/prefix_tree.cpp", "kCompared", "include/paddock/kv_cache.h", "among the {} newest"),
    ("src/kv/policy_map.cpp", "kMostInterval", "docs/policies.md", "{} at most"),
    ("src/diagnose/doctor_causes.cpp", "kGreedyShare", "docs/doctor.md", "held most: {} of all on average"),
    ("src/diagnose/doctor_causes.cpp", "kGreedyTimes", "docs/doctor.md", "at its most {} times the median"),
    ("src/diagnose/doctor_causes.cpp", "kPoorFill", "docs/doctor.md", "pages were less than {} full"),
    ("src/diagnose/doctor_causes.cpp", "kWastedPool", "docs/doctor.md", "empty room in them was {} of the pool"),
    ("src/diagnose/doctor_causes.cpp", "kRegretShare", "docs/doctor.md", "| {} of the blocks looked for had been there"),
    ("src/diagnose/doctor_causes.cpp", "kBrokenShare", "docs/doctor.md", "compared with the one before, {}, and"),
    ("src/diagnose/doctor_causes.cpp", "kBrokenPairs", "docs/doctor.md", "the one before, half, and {} or more, differ"),
    ("src/diagnose/doctor_causes.cpp", "kUnsharedShare", "docs/doctor.md", "| {} of the prompts' blocks, or more,"),
    ("include/paddock/trace.h", "kTraceVersion", "docs/trace-format.md", "the version (`u32`, {})"),
]
WORDS = {"two": 2, "three": 3, "sixteen": 16, "half": 0.5, "a quarter": 0.25}


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return f.read()


def files():
    found = ["README.md", "CMakeLists.txt"]
    for top in TOPS:
        for folder, _, names in os.walk(os.path.join(ROOT, top)):
            found += [os.path.relpath(os.path.join(folder, name), ROOT) for name in names]
    return found


def names_a_file(name, all_files):
    """A path from the root, or its end: `kv/trim.cpp` and `trim.cpp` are src/kv/trim.cpp."""
    return any(fnmatch.fnmatch(path, name) or fnmatch.fnmatch(path, "*/" + name) for path in all_files)


def stands_in(name, text):
    """Whether a file has it: a function is defined or declared there, not only called; else it is named."""
    word = name.removesuffix("()").split("::")[-1]
    if not name.endswith("()"):
        return re.search(rf"\b{word}\b", text)
    no_type = r"(?:return|else|throw|case|if|while|for|switch)\b"
    return re.search(rf"^[ \t]*(?:\[\[[\w:]+\]\] )?(?!{no_type})(?:[\w:<>,*&()]+ )*[\w:<>,*&()]*[*& ](?:\w+::)*{word}\(", text, re.M) or re.search(
        rf"^(?:\w+::)+{word}\(", text, re.M)


def check_pairs(path, all_files):
    """What a document says to stand in a file stands there."""
    wrong = []
    for names, file in PAIR.findall("".join(read(path).split("```")[0::2])):
        pattern = file + "*" if file.endswith("/") else file
        if not FILE.fullmatch(file) and not os.path.isdir(os.path.join(ROOT, file)):
            continue
        texts = [read(f) for f in all_files if names_a_file(pattern, [f])]
        for name in re.findall(r"`([^`]+)`", names):
            if not any(stands_in(name, text) for text in texts):
                wrong.append(f"{path}: `{name}` does not stand in `{file}`; name the file that has it")
    return wrong


def check_document(path, all_files, code):
    text = read(path)
    wrong = []
    fences = text.split("```")
    for name in sorted({n for part in fences[1::2] for n in FILE.findall(part)}):
        if not names_a_file(name, all_files):
            wrong.append(f"{path}: the drawing names {name}, which is no file; name another or add it")
    for name in sorted({n for part in fences[0::2] for n in re.findall(r"`([^`\n]+)`", part)}):
        test = TEST.match(name)
        if FILE.fullmatch(name):
            if not names_a_file(name, all_files):
                wrong.append(f"{path}: `{name}` is no file; name another or add it")
        elif name.endswith("/") and re.fullmatch(r"[\w/]+", name):
            if not os.path.isdir(os.path.join(ROOT, name)):
                wrong.append(f"{path}: `{name}` is no folder; name another or add it")
        elif test and not test.group(2).isupper():
            if not re.search(rf"TEST(?:_F|_P)?\(\s*{test.group(1)},\s*{test.group(2)}\)", code):
                wrong.append(f"{path}: `{name}` is no test; name another or add it")
        elif CODE.match(name):
            for word in re.findall(r"\w+", name):
                if not re.search(rf"\b{word}\b", code):
                    wrong.append(f"{path}: `{name}`: nothing is called {word}; correct the name")
    return wrong


def check_commands():
    commands = re.findall(r"\badd_(\w+)\(tool\)", read("examples/paddock/main.cpp"))
    wrong = [] if len(commands) > 5 else ["examples/paddock/main.cpp: no commands are found there"]
    listed = re.search(r"^- The tool `paddock`: ([\w,\s]+)\.$", read("README.md"), re.M)
    in_readme = re.findall(r"\w+", listed.group(1)) if listed else []
    in_table = re.findall(r"^\| `(\w+)\b", read("docs/cli.md"), re.M)
    for command in commands:
        if command not in in_readme:
            wrong.append(f"README.md: the list of `paddock`'s commands lacks {command}; add it")
        if command not in in_table:
            wrong.append(f"docs/cli.md: the table of commands lacks {command}; add a row")
    return wrong + [f"README.md: {name} is no command; take it out" for name in in_readme if name not in commands]


def check_chat_commands():
    """The commands that a chat lists are those of the table in docs/cli.md, and so are their arguments."""
    listed = re.search(r"kCommands\[\] = \{(.*?)\};", read("examples/paddock/chat_line.cpp"), re.S)
    commands = re.findall(r'\{"(\w+)",\s*(nullptr|"[^"]*")', listed.group(1)) if listed else []
    wrong = [] if len(commands) > 5 else ["examples/paddock/chat_line.cpp: no commands are found there"]
    table = read("docs/cli.md").split("## A conversation")[1].split("\n## ")[0]
    rows = " ".join(line.split(" | ")[0] for line in table.splitlines() if line.startswith("| `/"))
    forms = re.findall(r"`/(\w+)(?: (\w+))?`", rows)
    for name, argument in commands:
        wanted = argument.strip('"')  # "[TEXT]": with it and without it, "N": with it
        options = [None] if argument == "nullptr" else [wanted.strip("[]")] + [None] * wanted.startswith("[")
        of_name = [form[1] or None for form in forms if form[0] == name]
        if name == "exit" or (name == "unpin" and f"`/unpin {wanted}`" in table):  # in the rows of quit and pin
            continue
        for option in options:
            if option not in of_name:
                wrong.append(f"docs/cli.md: the table of a chat's commands lacks /{name}{' ' + option if option else ''}; add a row")
    names = [name for name, _ in commands]
    return wrong + [f"docs/cli.md: /{form[0]} is no command of a chat; take it out" for form in forms if form[0] not in names]


def check_numbers():
    wrong = []
    for source, name, path, words in NUMBERS:
        where = f"{path}: '{words}'"
        value = re.search(rf"\b{name} = ([\d.]+);", read(source))
        before, after = (r"[\s/]+".join(re.escape(w) for w in part.split()) for part in words.split("{}"))
        told = re.findall(rf"{before}\s*(\d[\d,.]*(?: %)?|{'|'.join(WORDS)})[\s/]*{after}", read(path))
        if not value or len(told) != 1:
            wrong.append(f"{where}: {'found ' + str(len(told)) + ' times' if value else source + ' has no ' + name}; "
                         "correct NUMBERS in tests/docs_paths.py")
            continue
        number = WORDS.get(told[0]) or float(re.sub(r"[, %]", "", told[0])) / (100 if "%" in told[0] else 1)
        if number != float(value.group(1)):
            wrong.append(f"{where}: it is told as {told[0]}, but {name} in {source} is {value.group(1)}; correct one of them")
    return wrong


def main():
    all_files = files()
    code = "\n".join(
        read(path) for path in all_files if path.endswith((".h", ".cpp", ".cu", ".py")) and not path.startswith("tests/mutants"))
    wrong = check_document("docs/architecture.md", all_files, code) + check_pairs("docs/architecture.md", all_files)
    wrong += check_commands() + check_chat_commands() + check_numbers()
    print("\n".join(wrong) if wrong else f"{len(all_files)} files: what the documents name is there")
    return 1 if wrong or len(all_files) < 100 else 0


if __name__ == "__main__":
    sys.exit(main())
