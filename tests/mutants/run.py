#!/usr/bin/env python3
"""Makes each fault of the lists beside this file, one at a time, and sees whether the tests notice.

    run.py [AREA|ID...] [--check] [--survivors] [--write FILE] ...

All faults are built at once, as switches that an environment variable turns on, in a copy of the working
tree in build/mutants; a second run builds what has changed since. First every test runs by itself, with no
fault, and writes down which switches it comes through; then a fault is tried on the tests named for it that
come through it, the short ones first. It is noticed if one of them fails, crashes or hangs. Fails where the
lists do not fit the sources, a test fails without any fault, fewer than 95 % of the faults are noticed, or a
test notices a change that is no fault.
"""
import argparse
import hashlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import faults as lists

ROOT = os.path.dirname(os.path.dirname(lists.HERE))
KEPT = os.path.join(lists.HERE, "results.tsv")  # of earlier runs, written with the report
LEAST = 0.95
TOGETHER = 1.0  # seconds of tests that are tried in one go


def read(path):
    try:
        with open(path, "rb") as f:
            return f.read()
    except FileNotFoundError:
        return None


def write_changed(path, data, mode=0o644):
    if read(path) == data:
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(data)
    os.chmod(path, mode)


def copy_tree(tree, faults):
    """The working tree with all faults; files that are as before keep their times."""
    mutated = lists.rewrite(ROOT, faults)
    names = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                           check=True, capture_output=True).stdout.decode().split("\0")
    kept = set()
    for name in filter(None, names):
        path = os.path.join(ROOT, name)
        if not os.path.isfile(path) or name.startswith("tests/mutants/"):
            continue
        kept.add(name)
        data = mutated[name].encode() if name in mutated else read(path)
        write_changed(os.path.join(tree, name), data, os.stat(path).st_mode & 0o777)
    write_changed(os.path.join(tree, "mutant_switch.h"), lists.SWITCH.encode())
    kept.add("mutant_switch.h")
    for folder, _, files in os.walk(tree):
        for file in files:
            path = os.path.join(folder, file)
            if os.path.relpath(path, tree) not in kept:
                os.remove(path)


def build(tree, folder, programs):
    log = os.path.join(os.path.dirname(folder), "build.log")
    configure = ["cmake", "-S", tree, "-B", folder, "-G", "Ninja", "-DPADDOCK_CUDA=OFF",
                 "-DPADDOCK_BUILD_TESTS=ON", "-DPADDOCK_CHECK_STEPS=ON", "-DCMAKE_BUILD_TYPE=Release",
                 "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG",
                 f"-DCMAKE_CXX_FLAGS=-w -include {tree}/mutant_switch.h"]
    if shutil.which("ccache"):
        configure.append("-DCMAKE_CXX_COMPILER_LAUNCHER=ccache")
    with open(log, "wb") as out:
        for command in (configure, ["ninja", "-C", folder, "-j", "2", "-k", "0", *programs]):
            if subprocess.run(command, stdout=out, stderr=subprocess.STDOUT).returncode != 0:
                text = read(log).decode(errors="replace")
                shown = [line for line in text.splitlines() if re.search(r"error|FAILED", line)][:30]
                sys.exit("the tree with all faults does not build; all of it is in " + log + "\n" +
                         "\n".join(shown or text.splitlines()[-30:]))


class Tests:
    """Tests are named PROGRAM:SUITE.TEST; in the lists also PROGRAM, or PROGRAM:PATTERN for several."""

    def __init__(self, folder):
        self.programs = os.path.join(folder, "tests")
        self.listed = {}  # what an entry of the lists stands for
        self.seconds = {}  # of what passes without a fault
        self.reached = {}  # switches that it comes through
        self.wrong = {}  # what is wrong with the others
        self.skipped = []

    def run(self, program, names, limit, **environment):
        """Exit status (None: hung), output, seconds. `limit`: seconds of processor time, so that a busy
        machine makes nothing seem to hang; one that waits for ever is given up after four times as long."""
        command = ["prlimit", f"--cpu={math.ceil(limit)}:", os.path.join(self.programs, program),
                   "--gtest_fail_fast", "--gtest_brief=0", "--gtest_filter=" + ":".join(names)]
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile() as out:
            process = subprocess.Popen(command, cwd=scratch, env=dict(os.environ, **environment),
                                       stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                       start_new_session=True)
            try:
                status = process.wait(4 * limit)
                if status == -signal.SIGXCPU:
                    status = None
            except subprocess.TimeoutExpired:
                status = None
                os.killpg(process.pid, 9)
                process.wait()
            out.seek(0)
            return status, out.read().decode(errors="replace"), time.monotonic() - start

    def names(self, entry):
        if entry not in self.listed:
            program, _, pattern = entry.partition(":")
            out = subprocess.run([os.path.join(self.programs, program), "--gtest_list_tests",
                                  "--gtest_filter=" + (pattern or "*")], check=True, capture_output=True).stdout
            found, suite = [], ""
            for line in out.decode().splitlines():
                name = line.partition("#")[0].rstrip()
                if line.startswith("  "):
                    found.append(f"{program}:{suite}{name.strip()}")
                elif name.endswith("."):
                    suite = name
            self.listed[entry] = [name for name in found if ".DISABLED_" not in name]
            if not found:
                self.wrong[entry] = f"{entry} names no test"
                print(self.wrong[entry], flush=True)
        return self.listed[entry]

    def of(self, fault):
        return list(dict.fromkeys(name for entry in fault.tests for name in self.names(entry)))

    def prove(self, test):
        """Runs it without a fault."""
        program, _, name = test.partition(":")
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "reached")
            status, out, seconds = self.run(program, [name], 900, PADDOCK_MUTANTS_REACHED=path)
            reached = read(path) or b""
        if status != 0:
            self.wrong[test] = f"{test} fails without any fault:\n" + "\n".join(out.splitlines()[-15:])
            print(self.wrong[test], flush=True)
            return
        if "[  SKIPPED ]" in out:
            self.skipped.append(test)
        self.reached[test] = {int.from_bytes(reached[i:i + 8], sys.byteorder) for i in range(0, len(reached), 8)}
        self.seconds[test] = seconds

    def killer(self, fault):
        """Which test notices the fault, and how; nothing if none does."""
        switch = hash_of(fault.id)
        left = [test for test in self.of(fault) if switch in self.reached.get(test, ())]
        left.sort(key=self.seconds.get)
        while left:
            program = program_of(left[0])
            together, seconds = [], 0.0
            for test in [t for t in left if program_of(t) == program]:
                if together and seconds + self.seconds[test] > TOGETHER:
                    break
                together.append(test)
                seconds += self.seconds[test]
            left = [test for test in left if test not in together]
            status, out, _ = self.run(program, [t.partition(":")[2] for t in together], 5 + 10 * seconds,
                                      PADDOCK_MUTANT=fault.id)
            if status == 0:
                continue
            failed = re.findall(r"^\[  FAILED  \] ([\w/.]+)", out, re.M)
            running = re.findall(r"^\[ RUN      \] ([\w/.]+)", out, re.M)
            how = "hangs" if status is None else "fails" if failed else f"crashes ({status})"
            at = failed[:1] or running[-1:]
            return f"{program}:{at[0]}" if at else together[0], how
        return None


def hash_of(name):
    """As PADDOCK_MUT() has it."""
    h = 14695981039346656037
    for byte in name.encode():
        h = (h ^ byte) * 1099511628211 % 2**64
    return h


def program_of(test):
    return test.partition(":")[0]


def mark(fault):
    """Changes with the fault, so that an earlier result is not taken for that of another one."""
    text = "\0".join((fault.file, fault.anchor, fault.replacement))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def table(faults, results):
    """Rows of (area, faults, equivalent, noticed), and their sum."""
    rows = []
    for area in sorted({f.area for f in faults}):
        its = [f for f in faults if f.area == area]
        rows.append((area, len(its), sum(1 for f in its if f.same),
                     sum(1 for f in its if not f.same and results.get(f.id, {}).get("by"))))
    return rows + [("all", *(sum(row[i] for row in rows) for i in (1, 2, 3)))]


def rate(row):
    return row[3] / (row[1] - row[2]) if row[1] > row[2] else 1.0


def read_kept():
    rows = (line.split("\t") for line in (read(KEPT) or b"").decode().splitlines())
    return {name: {"of": of, "by": by or None, "how": how or None} for name, of, by, how in rows}


def write_kept(faults, results):
    with open(KEPT, "w", encoding="utf-8") as out:
        for f in faults:
            if f.id in results:
                r = results[f.id]
                out.write("\t".join((f.id, r["of"], r["by"] or "", r["how"] or "")) + "\n")


def write_report(path, faults, results):
    made = [f for f in faults if f.same or f.id in results]
    lines = ["# Faults that the tests notice", "",
             "Written by `tests/mutants/run.py --write docs/mutants.md`, which makes every fault of the lists in",
             "`tests/mutants`, one at a time, and runs the tests that should notice (`tests/run.sh --long` does so,",
             "too). A change that nobody can see is no fault and is not counted. `tests/mutants/results.tsv` says which",
             "test noticed which fault; a fault whose anchor or place has changed since is made again (`--rest`).", "",
             "| area | changes | no fault | faults | noticed | |", "|---|---|---|---|---|---|"]
    for row in table(made, results):
        lines.append(f"| {row[0]} | {row[1]} | {row[2]} | {row[1] - row[2]} | {row[3]} | {100 * rate(row):.0f} % |")
    if len(made) < len(faults):
        lines += ["", f"{len(faults) - len(made)} more are in the lists and have not been made since they came or changed."]
    missed = [f for f in made if not f.same and not results.get(f.id, {}).get("by")]
    lines += ["", "## Not noticed", ""]
    lines += [f"- `{f.id}`, {f.file}: {f.what}" for f in missed] or ["None."]
    lines += ["", "## No faults", ""]
    lines += [f"- `{f.id}`, {f.file}: {f.what}. {f.same}" for f in faults if f.same] or ["None."]
    with open(path, "w", encoding="utf-8") as out:
        out.write("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chosen", nargs="*", metavar="AREA|ID", help="all unless given")
    parser.add_argument("--check", action="store_true", help="only see whether the lists fit the sources")
    parser.add_argument("--survivors", action="store_true", help="only those that were not noticed last time")
    parser.add_argument("--rest", action="store_true", help="only those that an earlier run has not come to")
    parser.add_argument("--hunt", action="store_true", help="try every program of the lists on what survives")
    parser.add_argument("--write", metavar="FILE", help="write the results, those of earlier runs included")
    parser.add_argument("--report", action="store_true", help="run nothing, show the last results")
    parser.add_argument("--folder", default=os.path.join(ROOT, "build", "mutants"))
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()

    try:
        faults = lists.load()
        if options.check:
            lists.rewrite(ROOT, faults)
            print(f"{len(faults)} anchors fit")
            return 0
    except lists.Stale as e:
        print(e)
        return 1

    known = {f.id for f in faults} | {f.area for f in faults}
    unknown = [c for c in options.chosen if c not in known]
    if unknown:
        sys.exit("no area and no fault: " + ", ".join(unknown))
    folder = os.path.abspath(options.folder)
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "results.json")
    results = json.loads(read(path) or b"null") or read_kept()
    marks = {f.id: mark(f) for f in faults}
    results = {name: r for name, r in results.items() if r.get("of") == marks.get(name)}

    def save():
        with open(path + ".new", "w", encoding="utf-8") as out:
            json.dump(results, out, indent=0)
        os.replace(path + ".new", path)

    chosen = [f for f in faults if not options.chosen or f.area in options.chosen or f.id in options.chosen]
    todo = chosen
    if options.survivors:
        todo = [f for f in todo if not f.same and f.id in results and not results[f.id]["by"]]
    if options.rest:
        todo = [f for f in todo if f.id not in results]
    if options.hunt:
        programs = sorted({t.partition(":")[0] for f in faults for t in f.tests})
        for f in todo:
            f.tests += [p for p in programs if p not in f.tests and not f.same]
    if not options.report:
        tree = os.path.join(folder, "tree")
        try:
            copy_tree(tree, faults)
        except lists.Stale as e:
            sys.exit(str(e))
        tests = Tests(os.path.join(folder, "build"))
        wanted = {program_of(t) for f in todo for t in f.tests}
        build(tree, os.path.join(folder, "build"), sorted(wanted))
        with ThreadPoolExecutor(options.jobs) as pool:
            every = list(dict.fromkeys(test for f in todo for test in tests.of(f)))
            print(f"{len(todo)} faults, {len(every)} tests", flush=True)
            list(pool.map(tests.prove, every))
            if tests.wrong:
                print("NOTE: these fail without any fault and notice none: " + ", ".join(sorted(tests.wrong)))
            if tests.skipped:
                print(f"NOTE: {len(tests.skipped)} tests are skipped here: " + ", ".join(tests.skipped))
            lock = threading.Lock()

            def try_fault(fault):
                found = tests.killer(fault)
                with lock:
                    by, how = found or (None, None)
                    results[fault.id] = {"of": marks[fault.id], "by": by, "how": how}
                    save()
                    missed = "not noticed, and no fault" if fault.same else "NOT NOTICED"
                    print(f"{fault.id}  {fault.what}: " + (f"{by}: {how}" if by else missed), flush=True)

            list(pool.map(try_fault, todo))

    shown = faults if options.report else [f for f in chosen if f.same or f in todo]
    print()
    for row in table(shown, results):
        print(f"{row[0]:<10} {row[3]:>4} of {row[1] - row[2]:>4} faults noticed ({100 * rate(row):.0f} %), "
              f"{row[2]} changes are none")
    missed = [f for f in shown if not f.same and not results.get(f.id, {}).get("by")]
    for f in missed:
        print(f"NOT NOTICED: {f.id}, {f.file}: {f.what}")
    wrong = [f for f in shown if f.same and results.get(f.id, {}).get("by")]
    for f in wrong:
        print(f"NOTICED, BUT NO FAULT: {f.id}, {f.file}: {f.what}, by {results[f.id]['by']}: {results[f.id]['how']}")
    if options.write:
        write_report(options.write, faults, results)
        write_kept(faults, results)
    broken = not options.report and bool(tests.wrong)
    return 0 if not wrong and not broken and rate(table(shown, results)[-1]) >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
