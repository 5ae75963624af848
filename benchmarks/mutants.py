"""Do the tests notice changed code? `make coverage`, then `python -m benchmarks.mutants --seed 0 --count 200`.

Changes one place of the code that this project exists for, runs the tests that run the changed line (the quick ones
first), and looks whether one fails. Modules are drawn with equal chances, then a place within the module. What survives
is read by a person: `equivalent.csv` holds the changes that no test can notice, each with its reason.
"""

import argparse
import ast
import csv
import importlib
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.canary_mutants import BOOK, LIBRARY, LOADED, ROOT, Mutant, changed, sites

COVERED = (
    *(LIBRARY / "api" / f"{name}.py" for name in ("granularity", "meter", "service")),
    *(LIBRARY / "attacks" / f"{name}.py" for name in ("adaptive", "jacobian", "knockoff", "own_images", "transfer")),
    LIBRARY / "attacks" / "twice.py",
    *(
        LIBRARY / "defenses" / f"{name}.py"
        for name in ("accounts", "detectors", "ownership", "perturbations", "policies", "watermark")
    ),
    LIBRARY / "metrics.py",
    *(BOOK / "reproduction" / f"{name}.py" for name in ("claims", "judging", "ledger")),
)
"""Attacks, API, meter, transfer sets, defenses, metrics and the ledger."""

MEASURED = ROOT / "_build" / "coverage" / "data"
"""Which test runs which line, as `make coverage` leaves it."""

TIMED = MEASURED.with_name("tests.xml")
"""How long each test took there."""

EQUIVALENT = Path(__file__).with_name("equivalent.csv")
MOST = 90.0
"""Seconds of tests that a mutant is given; the slowest beyond them are left out."""

PRELOADED = (*LOADED, "hypothesis", "pandas", "pytest", "sqlalchemy")
"""Libraries that all runs share."""

KILLED, OF_A_MODULE, EQUIVALENTS = 0.96, 0.90, 0.08
"""Goals: the share killed of those that can be, the same of a module, and the most that may be called equivalent."""


# -- which tests --------------------------------------------------------------------


def tests_by_line(file: str) -> dict[int, set[str]]:
    """Return, for each line of a file, the tests that run it, as ``"tests/test_metrics.py::test_a"``."""
    coverage = importlib.import_module("coverage")
    data = coverage.CoverageData(str(MEASURED))
    data.read()
    found: dict[int, set[str]] = {}
    for line, contexts in data.contexts_by_lineno(str(ROOT / file)).items():
        names = (context.split(".") for context in contexts if context)
        found[line] = {f"tests/{name[0]}.py::{name[1]}" for name in names if name[0].startswith("test_")}
    return found


def durations() -> dict[str, float]:
    """Return how many seconds each test took, with all its parameters."""
    found: dict[str, float] = defaultdict(float)
    for case in ElementTree.parse(TIMED).iter("testcase"):
        file = case.get("classname", "").replace(".", "/")
        found[f"{file}.py::{case.get('name', '').partition('[')[0]}"] += float(case.get("time", 0))
    return found


def chosen(mutant: Mutant, lines: Mapping[int, set[str]], seconds: Mapping[str, float]) -> list[str]:
    """Return the tests that run a mutant's lines, the quick ones first, of all no more than `MOST` seconds.

    Lines that run at import only are tried by all tests of the module.
    """
    near = set().union(*(lines.get(line, set()) for line in mutant.lines)) or set().union(*lines.values())
    spent, kept = 0.0, []
    for test in sorted(near & seconds.keys(), key=lambda name: (seconds[name], name)):
        spent += seconds[test]
        if spent > MOST and kept:
            break
        kept.append(test)
    return kept


# -- running them in a process forked before the package is imported ------------------


def passed(root: Path, cache: Path, tests: Iterable[str], *, limit: float, stop: bool) -> tuple[dict[str, float], str]:
    """Run tests in a new process; return how long each that passed took, and the first that did not.

    Args:
        root: The copy of the checkout.
        cache: The folder of victims and images, which is copied.
        tests: Their names.
        limit: Seconds until they count as hanging.
        stop: Whether the first failure ends the run.
    """
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        own = Path(folder) / "cache"
        shutil.copytree(cache, own, copy_function=os.link)
        process = fork.Process(target=_test, args=(root, own, theirs, list(tests), stop))
        process.start()
        theirs.close()
        deadline, took = time.monotonic() + limit, defaultdict(float)
        failures: list[str] = []
        try:
            while ours.poll(max(0.0, deadline - time.monotonic())):
                name, outcome, seconds = ours.recv()
                took[name] += seconds
                if outcome == "failed":
                    failures.append(name)
            failures.append("hangs")
        except EOFError:
            process.join()
            failures += ["its process died"] if process.exitcode else []
        finally:
            process.kill()
            process.join()
    return {name: spent for name, spent in took.items() if name not in failures}, next(iter(failures), "")


class _Report:
    """Sends the outcome of each test."""

    def __init__(self, pipe: Connection):
        self.pipe = pipe

    def pytest_runtest_logreport(self, report) -> None:
        name = report.nodeid.partition("[")[0]
        self.pipe.send((name, "failed" if report.failed else "passed", report.duration))

    def pytest_collectreport(self, report) -> None:
        if report.failed:
            self.pipe.send((report.nodeid, "failed", 0.0))


def _test(root: Path, cache: Path, pipe: Connection, tests: list[str], stop: bool) -> None:
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1), os.dup2(quiet, 2)
    os.chdir(root)
    os.environ |= {"EXTRACTLIB_CACHE": str(cache), "PYTHONPATH": f"{root}:{root / 'book'}"}
    sys.dont_write_bytecode = stop  # the first run, of unchanged code, compiles it for all others
    sys.path[:0] = [str(root), str(root / "book"), str(root / "tests")]
    importlib.import_module("torch").set_num_threads(1)
    package = importlib.import_module("extractlib")
    assert Path(package.__file__).is_relative_to(root), package.__file__
    words = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly", "-m", "not slow"]
    code = importlib.import_module("pytest").main([*words, *(["-x"] if stop else []), *tests], plugins=[_Report(pipe)])
    pipe.close()
    os._exit(0 if code in (0, 1, 5) else 2)


# -- judging --------------------------------------------------------------------------


def sampled(root: Path, seed: int, done: int) -> Iterator[Mutant]:
    """Yield different mutants without end, of modules with equal chances, from a number on."""
    paths = [str(path) for path in COVERED]
    places = {name: len(list(sites(ast.parse((root / name).read_text())))) for name in paths}
    chance, seen = random.Random(seed), set()
    while len(seen) < sum(places.values()):
        file = chance.choice(paths)
        number = chance.randrange(places[file])
        if (file, number) not in seen:
            seen.add((file, number))
            if len(seen) > done:
                yield changed(root, file, number)


def equivalents() -> dict[tuple[str, str, str], str]:
    """Return the reasons why changes cannot be noticed, by file, statement before and after."""
    with EQUIVALENT.open(newline="", encoding="utf-8") as file:
        return {(line["file"], line["before"], line["after"]): line["reason"] for line in csv.DictReader(file)}


def counted(entries: Iterable[Mapping[str, str]]) -> dict[str, Counter]:
    """Return how many mutants of each module, and of ``"all"``, are killed, survive and are called equivalent."""
    known, found = equivalents(), defaultdict(Counter)
    for entry in entries:
        alive = entry["verdict"] == "survives"
        equivalent = alive and (entry["file"], entry["before"], entry["after"]) in known
        found[entry["file"]]["equivalent" if equivalent else entry["verdict"]] += 1
    return dict(sorted(found.items())) | {"all": sum(found.values(), Counter())}


def score(counts: Mapping[str, int]) -> float:
    """Return the share that is killed of those that can be; 1 where there are none."""
    real = counts["killed"] + counts["survives"]
    return counts["killed"] / real if real else 1.0


def faults(found: Mapping[str, Counter]) -> list[str]:
    """Return which goals are missed."""
    every = found["all"]
    missed = [f"{name}: {score(counts):.3f}" for name, counts in found.items() if score(counts) < OF_A_MODULE]
    missed += [f"killed: {score(every):.3f} of {KILLED}"] if score(every) < KILLED else []
    share = every["equivalent"] / max(1, every.total())
    return missed + ([f"called equivalent: {share:.3f}, at most {EQUIVALENTS}"] if share > EQUIVALENTS else [])


def summary(found: Mapping[str, Counter]) -> str:
    """Return the scores by module and in all."""
    text = [f"{'module':48} {'run':>4} {'killed':>6} {'equivalent':>10} {'score':>6}"]
    for name, counts in found.items():
        line = f"{name:48} {counts.total():4} {counts['killed']:6} {counts['equivalent']:10} {score(counts):6.3f}"
        text.append(line)
    return "\n".join(text)


def main() -> None:
    """Sample, judge and log mutants until there are enough or the time is over; status 1 below the goals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--count", type=int, default=200, help="mutants")
    parser.add_argument("--minutes", type=float, default=75, help="begin no mutant after so long")
    parser.add_argument(
        "--log", type=Path, default=ROOT / "_build" / "mutants-of-tests.jsonl", help="goes on at its end"
    )
    parser.add_argument("--again", action="store_true", help="only judge those again that survived")
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    for name in PRELOADED:
        importlib.import_module(name)
    options.log.parent.mkdir(parents=True, exist_ok=True)
    entries = [json.loads(line) for line in options.log.read_text().splitlines()] if options.log.exists() else []
    lines, seconds = {str(path): tests_by_line(str(path)) for path in COVERED}, durations()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        root = Path(folder).resolve() / "checkout"
        skipped = shutil.ignore_patterns("__pycache__", ".venv", "_build", ".git", "launch", ".hypothesis")
        shutil.copytree(ROOT, root, ignore=skipped)
        cache = Path(os.environ.get("EXTRACTLIB_CACHE", ROOT / "_build" / "cache"))
        cache.mkdir(parents=True, exist_ok=True)
        if options.again:
            waiting = [(_found(root, entry), entry) for entry in entries if entry["verdict"] == "survives"]
        else:
            missing = max(0, options.count - len(entries))
            waiting = [(mutant, {}) for mutant in islice(sampled(root, options.seed, len(entries)), missing)]
        everything = sorted(set().union(*(chosen(mutant, lines[mutant.file], seconds) for mutant, _ in waiting)))
        seconds, failed = passed(root, cache, everything, limit=3_600, stop=False)
        print(f"{len(seconds)} tests in {sum(seconds.values()):.0f} s; the first that fails here: {failed or 'none'}")
        for number, (mutant, entry) in enumerate(waiting, start=1):
            if time.monotonic() > deadline:
                break
            if not entry:
                entries.append(entry)
                entry |= {"file": mutant.file, "line": mutant.lines[0], "kind": mutant.kind}
                entry |= {"before": mutant.before, "after": mutant.after}
            file = root / mutant.file
            whole = file.read_bytes()
            tests = chosen(mutant, lines[mutant.file], seconds)
            file.write_text(mutant.code)
            limit = 60 + 3 * sum(seconds[name] for name in tests)
            _, test = passed(root, cache, tests, limit=limit, stop=True) if tests else ({}, "")
            file.write_bytes(whole)
            entry |= {"verdict": "killed" if test else "survives", "test": test}
            print(f"{number:>3} {entry['verdict']:<9} {entry['file']}:{entry['line']} {entry['kind']}", flush=True)
            options.log.write_text("".join(json.dumps(one) + "\n" for one in entries))
    known, found = equivalents(), counted(entries)
    for entry in entries:
        if entry["verdict"] == "survives" and (entry["file"], entry["before"], entry["after"]) not in known:
            print(f"survives {entry['file']}:{entry['line']}  {entry['before']}  ->  {entry['after']}")
    print(f"seed {options.seed}\n{summary(found)}")
    raise SystemExit("\n".join(faults(found)) or 0)


def _found(root: Path, entry: Mapping[str, str]) -> Mutant:
    """Return the mutant that a line of the log is about, in today's code."""
    for number in range(len(list(sites(ast.parse((root / entry["file"]).read_text()))))):
        mutant = changed(root, entry["file"], number)
        if (mutant.kind, mutant.before, mutant.after) == (entry["kind"], entry["before"], entry["after"]):
            return mutant
    raise SystemExit(f"{entry['file']} has no {entry['before']!r} any more: begin another log")


if __name__ == "__main__":
    main()
