"""Do the tests notice changed code? `make coverage`, then `python -m benchmarks.mutants --seed 0 --count 200`.

Changes one place in the code that this project exists for, runs the tests that run the changed line (the quick ones
first), and checks whether one fails: first in a process that has loaded everything and whose functions are given the
changed code, and, if no test notices the change there, in one that imports it. Modules are drawn with equal chances,
then a place within the module. Survivors are read by a person: `equivalent.csv` lists the changes that no test can
notice, each with the reason.
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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from types import FunctionType
from xml.etree import ElementTree

from benchmarks.canary_mutants import BOOK, LIBRARY, LOADED, ROOT, Mutant, changed, sites
from benchmarks.graft import Pair, differences, functions, graft

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
"""Which test runs which line, as recorded by `make coverage`."""

TIMED = MEASURED.with_name("tests.xml")
"""How long each test took there."""

EQUIVALENT = Path(__file__).with_name("equivalent.csv")
MOST = 240.0
"""Seconds of tests that each mutant gets; the slowest tests beyond that are left out."""

PRELOADED = (*LOADED, "hypothesis", "pandas", "pytest", "sqlalchemy")
"""Libraries that all runs share."""

KILLED, OF_A_MODULE, EQUIVALENTS = 0.96, 0.90, 0.08
"""Goals: the share killed of those that can be, the same per module, and the largest share called equivalent."""


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
    """Return how many seconds each test took, over all its parameters."""
    found: dict[str, float] = defaultdict(float)
    for case in ElementTree.parse(TIMED).iter("testcase"):
        file = case.get("classname", "").replace(".", "/")
        found[f"{file}.py::{case.get('name', '').partition('[')[0]}"] += float(case.get("time", 0))
    return found


def chosen(mutant: Mutant, lines: Mapping[int, set[str]], seconds: Mapping[str, float]) -> list[str]:
    """Return the tests that run a mutant's lines, the quick ones first, for no more than `MOST` seconds in all.

    Lines that run only at import are tried by all tests in the files whose tests run any line of the module.
    """
    near = set().union(*(lines.get(line, set()) for line in mutant.lines))
    if not near:
        files = {test.partition("::")[0] for test in set().union(*lines.values())}
        near = {test for test in seconds if test.partition("::")[0] in files}
    spent, kept = 0.0, []
    for test in sorted(near & seconds.keys(), key=lambda name: (seconds[name], name)):
        spent += seconds[test]
        if spent > MOST and kept:
            break
        kept.append(test)
    return kept


# -- running them in a separate process ---------------------------------------------


def failing(cache: Path, limit: float, run: Callable[..., None], *given: object) -> str:
    """Run tests in a forked process; return the first that fails, or what else went wrong; "" if all pass.

    Args:
        cache: The folder of victims and images, of which the process gets a copy.
        limit: Seconds until the process counts as hanging.
        run: Runs the tests; it gets a pipe, to which it sends the name of the first that fails, and `given`.
        given: The other arguments of `run`.
    """
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        own = Path(folder) / "cache"
        shutil.copytree(cache, own, copy_function=os.link)
        process = fork.Process(target=_forked, args=(own, run, theirs, *given))
        process.start()
        theirs.close()
        try:
            found = ours.recv() if ours.poll(limit) else "hangs"
        except EOFError:
            process.join()
            found = "its process died" if process.exitcode else ""
        finally:
            process.kill()
            process.join()
    return found


def _forked(cache: Path, run: Callable[..., None], *given: object) -> None:
    os.environ["EXTRACTLIB_CACHE"] = str(cache)
    run(*given)
    os._exit(0)


# In a process that imports the package.


class _Report:
    """Sends the name of each test that fails."""

    def __init__(self, pipe: Connection):
        self.pipe = pipe

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed:
            self.pipe.send(report.nodeid.partition("[")[0])

    pytest_collectreport = pytest_runtest_logreport


def _import_and_run(pipe: Connection, root: Path, tests: Sequence[str]) -> None:
    _load(root)
    code = importlib.import_module("pytest").main([*QUIETLY, "-x", *tests], plugins=[_Report(pipe)])
    os._exit(0 if code in (0, 1, 5) else 2)


QUIETLY = (
    *"-q -p no:cacheprovider -p no:xdist -p no:randomly --hypothesis-profile=ci".split(),
    *("-m", "not slow and not book"),
)


def _load(root: Path) -> None:
    """Import the package from a copy of the checkout, quietly."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1), os.dup2(quiet, 2)
    os.chdir(root)
    os.environ["PYTHONPATH"] = f"{root}:{root / 'book'}"
    sys.dont_write_bytecode = True
    sys.path[:0] = [str(root), str(root / "book"), str(root / "tests")]
    importlib.import_module("torch").set_num_threads(1)
    package = importlib.import_module("extractlib")
    assert Path(package.__file__).is_relative_to(root), package.__file__


# In a process that has loaded package and tests.

Job = tuple[int, Mutant, list[str], float]
"""The number of a mutant, the mutant, its tests, and the seconds until they count as hanging."""


class _Loop:
    """Replaces pytest's own loop: sends the number of each mutant with the test that notices it, or "".

    A test that also fails without a change is left out, as are those of a database server, which would outlive them.
    """

    def __init__(self, root: Path, cache: Path, jobs: Sequence[Job], deadline: float, pipe: Connection):
        self.root, self.cache, self.jobs, self.deadline, self.pipe = root, cache, jobs, deadline, pipe

    def pytest_runtestloop(self, session) -> bool:
        items, sound = defaultdict(list), {}
        for item in session.items:
            if "postgresql" not in item.nodeid and "postgresql" not in item.fixturenames:
                items[item.nodeid.partition("[")[0]].append(item)
        loaded = [one for path in COVERED for one in functions(str(self.root / path))]
        for number, mutant, tests, limit in self.jobs:
            changed, test = list(differences((self.root / mutant.file).read_text(), mutant.code)), ""
            while changed and time.monotonic() < self.deadline:
                fit = [item for name in tests if sound.get(name, True) for item in items[name]]
                with written(self.root, mutant):
                    test = failing(self.cache, limit, _graft_and_run, self.pipe, fit, loaded, changed)
                if test in items and test not in sound:
                    sound[test] = not failing(self.cache, limit, _graft_and_run, self.pipe, items[test], [], [])
                if sound.get(test, True):
                    break
            self.pipe.send((number, test if test in items or test == "hangs" else ""))
        return True


def _graft_and_run(
    pipe: Connection, above: Connection, items: Sequence, loaded: Sequence[FunctionType], changed: Sequence[Pair]
) -> None:
    above.close()  # belongs to the process above, whose end must be noticed
    if changed and not graft(loaded, changed):
        return
    protocol = importlib.import_module("_pytest.runner").runtestprotocol
    for item, following in zip(items, [*items[1:], None], strict=True):
        if any(report.failed for report in protocol(item, log=False, nextitem=following)):
            pipe.send(item.nodeid.partition("[")[0])
            item.session._setupstate.teardown_exact(None)
            return


def _quickly(root: Path, cache: Path, jobs: Sequence[Job], deadline: float, pipe: Connection) -> None:
    _load(root)
    files = sorted({test.partition("::")[0] for _, _, tests, _ in jobs for test in tests})
    importlib.import_module("pytest").main([*QUIETLY, *files], plugins=[_Loop(root, cache, jobs, deadline, pipe)])
    pipe.close()


@contextmanager
def written(root: Path, mutant: Mutant) -> Iterator[None]:
    """Keep a mutant in its file within the block."""
    file = root / mutant.file
    whole = file.read_bytes()
    file.write_text(mutant.code)
    try:
        yield
    finally:
        file.write_bytes(whole)


def judged(root: Path, cache: Path, jobs: Sequence[Job], deadline: float) -> Iterator[tuple[int, str]]:
    """Yield the number of each mutant with the test that notices it ("" if none does), the quick ones first."""
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=_quickly, args=(root, cache, jobs, deadline, theirs))
    process.start()
    theirs.close()
    noticed = {}
    with suppress(EOFError):
        while True:
            number, test = ours.recv()
            if test:
                noticed[number] = test
                yield number, test
    process.join()
    # What is left changes what runs at import, or what was imported hides it.
    for number, mutant, tests, limit in jobs:
        if number not in noticed and time.monotonic() < deadline:
            with written(root, mutant):
                yield number, failing(cache, limit, _import_and_run, root, tests)


# -- judging --------------------------------------------------------------------------


def sampled(root: Path, seed: int) -> Iterator[Mutant]:
    """Yield different mutants without end, drawing modules with equal chances."""
    paths = [str(path) for path in COVERED]
    places = {name: len(list(sites(ast.parse((root / name).read_text())))) for name in paths}
    chance, seen = random.Random(seed), set()
    while len(seen) < sum(places.values()):
        file = chance.choice(paths)
        number = chance.randrange(places[file])
        if (file, number) not in seen:
            seen.add((file, number))
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
    """Return the share that is killed of those that can be; 1 if there are none."""
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
    """Return the scores for each module and in all, as text."""
    text = [f"{'module':48} {'run':>4} {'killed':>6} {'equivalent':>10} {'score':>6}"]
    for name, counts in found.items():
        line = f"{name:48} {counts.total():4} {counts['killed']:6} {counts['equivalent']:10} {score(counts):6.3f}"
        text.append(line)
    return "\n".join(text)


def main() -> None:
    """Sample, judge and log mutants until there are enough or time runs out; exit with status 1 below the goals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    parser.add_argument("--count", type=int, default=200, help="number of mutants")
    parser.add_argument("--minutes", type=float, default=75, help="begin no mutant after this many minutes")
    parser.add_argument("--log", type=Path, default=ROOT / "_build" / "mutants-of-tests.jsonl", help="file to continue")
    parser.add_argument("--again", action="store_true", help="only judge again those that survived")
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
        mutants = list(islice(sampled(root, options.seed), options.count))
        entries += [described(mutant) for mutant in mutants[len(entries) :]]
        jobs, known = [], equivalents()
        for number, (mutant, entry) in enumerate(zip(mutants, entries, strict=True)):
            if described(mutant).items() - {("verdict", "open")} - entry.items():
                raise SystemExit(f"{options.log} is from other code or another sample: name another file")
            if (entry["file"], entry["before"], entry["after"]) in known:
                entry |= {"verdict": "survives", "test": ""}
            elif entry["verdict"] == "open" or (options.again and entry["verdict"] == "survives"):
                tests = chosen(mutant, lines[mutant.file], seconds)
                jobs.append((number, mutant, tests, 60 + 3 * sum(seconds[test] for test in tests)))
        for number, test in judged(root, cache, jobs, deadline):
            entry = entries[number]
            entry |= {"verdict": "killed" if test else "survives", "test": test}
            print(f"{number:>3} {entry['verdict']:<9} {entry['file']}:{entry['line']} {entry['kind']}", flush=True)
            options.log.write_text("".join(json.dumps(one) + "\n" for one in entries))
    found = counted(entries)
    for entry in entries:
        if entry["verdict"] == "survives" and (entry["file"], entry["before"], entry["after"]) not in known:
            print(f"survives {entry['file']}:{entry['line']}  {entry['before']}  ->  {entry['after']}")
    print(f"seed {options.seed}\n{summary(found)}")
    raise SystemExit("\n".join(faults(found)) or 0)


def described(mutant: Mutant) -> dict:
    """Return what the log says about a mutant that is not yet judged."""
    names = ("file", "kind", "before", "after")
    return {name: getattr(mutant, name) for name in names} | {"line": mutant.lines[0], "verdict": "open"}


if __name__ == "__main__":
    main()
