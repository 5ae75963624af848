"""Do the tests notice changed code? `make coverage`, then `python -m benchmarks.mutants --seed 0 --count 200`.

Changes one place of the code that this project exists for, runs the tests that run the changed line (the quick ones
first), and looks whether one fails. Modules are drawn with equal chances, then a place within the module. What survives
is read by a person: `equivalent.csv` holds the changes that no test can notice, each with its reason.
"""

import argparse
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
from multiprocessing.connection import Connection
from pathlib import Path

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

EQUIVALENT = Path(__file__).with_name("equivalent.csv")
MOST = 240.0
"""Seconds of tests that a mutant is given; the slowest beyond them are left out."""

GOALS = {"killed of those that can be": 0.96, "of a module": 0.90, "called equivalent, at most": 0.08}


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
    sys.dont_write_bytecode = True
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
    import ast

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


def summary(entries: Iterable[Mapping[str, str]]) -> str:
    """Return the scores of judged mutants, by module and in all, and what survives."""
    known, by_module, survivors = equivalents(), defaultdict(Counter), []
    for entry in entries:
        key = entry["file"], entry["before"], entry["after"]
        verdict = "equivalent" if entry["verdict"] == "survives" and key in known else entry["verdict"]
        by_module[entry["file"]][verdict] += 1
        if verdict == "survives":
            survivors.append(f"survives  {entry['file']}:{entry['line']}  {entry['before']}  ->  {entry['after']}")
    text = [f"{'module':48} {'run':>4} {'killed':>6} {'equivalent':>10} {'score':>6}"]
    for name, counts in [*sorted(by_module.items()), ("all", sum(by_module.values(), Counter()))]:
        real = counts["killed"] + counts["survives"]
        score = f"{counts['killed'] / real:6.3f}" if real else "     -"
        text.append(f"{name:48} {counts.total():4} {counts['killed']:6} {counts['equivalent']:10} {score}")
    return "\n".join([*survivors, *text])


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
    for name in LOADED:
        importlib.import_module(name)
    options.log.parent.mkdir(parents=True, exist_ok=True)
    entries = [json.loads(line) for line in options.log.read_text().splitlines()] if options.log.exists() else []
    lines = {str(path): tests_by_line(str(path)) for path in COVERED}
    everything = sorted(set().union(*(names for one in lines.values() for names in one.values())))
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        root = Path(folder).resolve() / "checkout"
        skipped = shutil.ignore_patterns("__pycache__", ".venv", "_build", ".git", "launch", ".hypothesis")
        shutil.copytree(ROOT, root, ignore=skipped)
        cache = Path(os.environ.get("EXTRACTLIB_CACHE", ROOT / "_build" / "cache"))
        cache.mkdir(parents=True, exist_ok=True)
        seconds, failed = passed(root, cache, everything, limit=3_600, stop=False)
        print(f"{len(seconds)} tests in {sum(seconds.values()):.0f} s; left out as failing here: {failed or 'none'}")
        waiting = (
            [entry for entry in entries if entry["verdict"] == "survives"]
            if options.again
            else sampled(root, options.seed, len(entries))
        )
        for mutant in waiting:
            if time.monotonic() > deadline or (len(entries) >= options.count and not options.again):
                break
            if isinstance(mutant, dict):  # judged again by tests that were added since
                entry = mutant
                made = _found(root, entry)
            else:
                made, entry = mutant, {}
                entry |= {"file": made.file, "line": made.lines[0], "kind": made.kind}
                entry |= {"before": made.before, "after": made.after}
                entries.append(entry)
            file = root / made.file
            whole = file.read_bytes()
            tests = chosen(made, lines[made.file], seconds)
            limit = 60 + 3 * sum(seconds[name] for name in tests)
            file.write_text(made.code)
            _, test = passed(root, cache, tests, limit=limit, stop=True) if tests else ({}, "")
            file.write_bytes(whole)
            entry |= {"verdict": "killed" if test else "survives", "test": test}
            print(
                f"{len(entries):>3} {entry['verdict']:<9} {entry['file']}:{entry['line']} {entry['kind']}", flush=True
            )
            options.log.write_text("".join(json.dumps(one) + "\n" for one in entries))
    print(summary(entries))


def _found(root: Path, entry: Mapping[str, str]) -> Mutant:
    """Return the mutant that a line of the log is about, in today's code."""
    import ast

    for number in range(len(list(sites(ast.parse((root / entry["file"]).read_text()))))):
        mutant = changed(root, entry["file"], number)
        if (mutant.kind, mutant.before, mutant.after) == (entry["kind"], entry["before"], entry["after"]):
            return mutant
    raise SystemExit(f"{entry['file']} has no {entry['before']!r} any more: begin another log")


if __name__ == "__main__":
    main()
