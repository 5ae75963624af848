"""Do the canaries notice changed code? `python -m benchmarks.canary_mutants --seed 0 --count 60`.

Changes one place in the code that a version covers, runs cells of every kind, and, if a result differs from the
unchanged code's, checks whether a canary fails. Modules are drawn with equal chances, then a place within the module,
so that the large modules that draw do not dominate. Each change is made in a copy of the checkout. Each run is a new
process, forked before any part of the package is imported.
"""

import argparse
import ast
import copy
import importlib
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOADED = ("torch", "torchvision", "scipy.stats", "PIL.Image", "safetensors.torch", "pytorch_ood.detector", "tqdm")
"""Libraries that are slow to import and that all runs share."""

LIBRARY, BOOK = Path("extractlib"), Path("book") / "extractbook"
COVERED = (
    *(LIBRARY / "api" / f"{name}.py" for name in ("granularity", "meter", "service")),
    *(LIBRARY / "data" / f"{name}.py" for name in ("decoding", "groups", "images", "layouts", "sources", "transforms")),
    *(LIBRARY / "models" / f"{name}.py" for name in ("classifier", "devices", "fitted", "networks", "training")),
    *(LIBRARY / "evaluation.py", LIBRARY / "metrics.py", LIBRARY / "attacks" / "*.py", LIBRARY / "defenses" / "*.py"),
    LIBRARY / "data" / "drawn" / "*.py",
    *(BOOK / "reproduction" / f"{name}.py" for name in ("backbones", "run", "setting", "experiments/*")),
)
"""The modules whose behavior has a version."""

SECONDS = 240
"""Seconds after which a run counts as hanging."""

SWAPPED: dict[type, type] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
LEFT_ALONE = (ast.Raise, ast.Assert, ast.JoinedStr, ast.Import, ast.ImportFrom, ast.Global)
NO_CODE = ("annotation", "returns", "decorator_list", "bases")


# -- the places that can be changed ------------------------------------------------


@dataclass(frozen=True)
class Site:
    """A place that can be changed.

    Attributes:
        kind: How it is changed.
        statement: The statement around it.
        apply: Changes the tree that the place was found in.
    """

    kind: str
    statement: ast.stmt
    apply: Callable[[], object]


def sites(node: ast.AST, statement: ast.stmt | None = None) -> Iterator[Site]:
    """Yield the places in a tree that can be changed, in the order of the code.

    Strings, annotations, decorators, and code that only leads to an error and words it are left alone.

    Args:
        node: The tree.
        statement: The statement that the tree is part of.
    """
    if isinstance(node, LEFT_ALONE) or _refuses(node) or _is_docstring(node):
        return
    statement = node if isinstance(node, ast.stmt) else statement
    yield from (Site(kind, statement, apply) for kind, apply in _changes(node))
    for name, value in ast.iter_fields(node):
        if name in NO_CODE or (name == "test" and _guards(node)):
            continue
        for number, child in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(child, ast.stmt) and _deletable(child):
                yield Site("statement deleted", child, lambda at=number, body=value: _put(body, at, ast.Pass()))
            if isinstance(child, ast.AST):
                yield from sites(child, statement)


def _changes(node: ast.AST) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield how a node itself can be changed."""
    if isinstance(node, ast.Compare):
        for at, operator in enumerate(node.ops):
            yield "comparison swapped", lambda at=at, old=operator: _put(node.ops, at, SWAPPED[type(old)]())
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in SWAPPED and not _of_text(node):
        yield "arithmetic swapped", lambda: setattr(node, "op", SWAPPED[type(node.op)]())
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "boolean negated", lambda: setattr(node, "value", not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        new = node.value + 1 if isinstance(node.value, int) else node.value * 1.1 or 0.1
        yield "number changed", lambda: setattr(node, "value", new)
    elif isinstance(node, ast.If | ast.IfExp | ast.While) and not _guards(node):
        yield "condition negated", lambda: setattr(node, "test", ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.comprehension):
        for at, test in enumerate(node.ifs):
            yield "condition negated", lambda at=at, test=test: _put(node.ifs, at, ast.UnaryOp(ast.Not(), test))
    elif isinstance(node, ast.Call):
        for keyword in node.keywords:
            if keyword.arg:
                yield "keyword dropped", lambda keyword=keyword: node.keywords.remove(keyword)
        for at in range(len(node.args) - 1):
            pair = node.args[at : at + 2]
            if not any(isinstance(argument, ast.Starred) for argument in pair):
                yield "arguments swapped", lambda at=at, pair=pair: _put(node.args, slice(at, at + 2), pair[::-1])


def _put(values: list, at: int | slice, new: object) -> None:
    values[at] = new


def _of_text(node: ast.AST) -> bool:
    sides = (node.left, node.right) if isinstance(node, ast.BinOp) else (node.value,)
    return any(isinstance(side, ast.JoinedStr) or isinstance(getattr(side, "value", 0), str | bytes) for side in sides)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _guards(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and all(map(_refuses, node.body))


def _refuses(node: ast.AST) -> bool:
    """Return whether a statement can do nothing but raise an error."""
    if isinstance(node, ast.If | ast.For | ast.With):
        return all(map(_refuses, [*node.body, *getattr(node, "orelse", [])]))
    return isinstance(node, ast.Raise)


def _deletable(node: ast.stmt) -> bool:
    """Return whether code can run without the statement, which is so if it binds no new name."""
    if _refuses(node) or _is_docstring(node) or (isinstance(node, ast.If) and node.orelse):
        return False
    if isinstance(node, ast.Assign):
        read = {part.id for part in ast.walk(node.value) if isinstance(part, ast.Name)}
        return all(getattr(target, "id", None) in read or not _binds(target) for target in node.targets)
    return isinstance(node, ast.Expr | ast.AugAssign | ast.Delete | ast.Continue | ast.Break | ast.If | ast.For)


def _binds(target: ast.expr) -> bool:
    return not isinstance(target, ast.Attribute | ast.Subscript)


def head(statement: ast.stmt) -> str:
    """Return a statement's code; for a compound one, its first line."""
    short = copy.copy(statement)
    for name, value in {"body": [ast.Pass()], "orelse": [], "decorator_list": [], "handlers": []}.items():
        if hasattr(short, name):
            setattr(short, name, value)
    return ast.unparse(ast.fix_missing_locations(short)).removesuffix("pass").strip()


def lines(statement: ast.stmt) -> range:
    """Return the numbers of a statement's lines; for a compound one, those before its body."""
    body = getattr(statement, "body", None)
    last = max(statement.lineno, body[0].lineno - 1) if body else statement.end_lineno
    return range(statement.lineno, last + 1)


@dataclass(frozen=True)
class Mutant:
    """Code with one change.

    Attributes:
        file: The module's path in the checkout.
        kind: How it was changed.
        lines: The lines of the statement around the change.
        before: The statement, or its first line.
        after: The same changed.
        code: The module changed.
    """

    file: str
    kind: str
    lines: range
    before: str
    after: str
    code: str


def modules(root: Path) -> dict[str, list[Site]]:
    """Return the places in the covered modules, by path; modules without any are left out."""
    paths = sorted({path for pattern in COVERED for path in root.glob(str(pattern))})
    found = {str(path.relative_to(root)): list(sites(ast.parse(path.read_text()))) for path in paths}
    return {name: places for name, places in found.items() if places}


def sampled(root: Path, seed: int) -> Iterator[Mutant]:
    """Yield different mutants without end, drawing modules with equal chances."""
    places, chance, seen = modules(root), random.Random(seed), set()
    while len(seen) < sum(map(len, places.values())):
        file = chance.choice(list(places))
        number = chance.randrange(len(places[file]))
        if (file, number) not in seen:
            seen.add((file, number))
            yield changed(root, file, number)


def changed(root: Path, file: str, number: int) -> Mutant:
    """Return a module changed at one of its places, by number."""
    tree = ast.parse((root / file).read_text())
    site = list(sites(tree))[number]
    before, reach = head(site.statement), lines(site.statement)
    site.apply()
    after = "pass" if site.kind == "statement deleted" else head(site.statement)
    return Mutant(file, site.kind, reach, before, after, ast.unparse(ast.fix_missing_locations(tree)))


# -- running in a separate process ------------------------------------------------


def forked(root: Path, run: Callable[..., Iterator], *arguments: object) -> tuple[list, str]:
    """Return what a generator yields in a new process, and how it failed (``""`` if it did not).

    Args:
        root: The copy of the checkout whose package the process imports.
        run: The generator.
        arguments: What it is called with.
    """
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    found, deadline = [], time.monotonic() + SECONDS
    with tempfile.TemporaryDirectory() as folder:
        process = fork.Process(target=_serve, args=(root, folder, theirs, run, arguments))
        process.start()
        theirs.close()
        try:
            while ours.poll(max(0.0, deadline - time.monotonic())):
                what, value = ours.recv()
                if what == "end":
                    return found, value
                found.append(value)
            return found, f"hangs for {SECONDS} s"
        except EOFError:
            return found, "its process died"
        finally:
            process.kill()
            process.join()


def _serve(root: Path, folder: str, pipe: Connection, run: Callable[..., Iterator], arguments: Sequence) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.environ["EXTRACTLIB_CACHE"] = tempfile.tempdir = folder
    sys.dont_write_bytecode = True
    sys.path[:0] = [str(root), str(root / "book"), str(root / "tests")]
    try:
        importlib.import_module("torch").set_num_threads(1)
        package = importlib.import_module("extractlib")
        assert Path(package.__file__).is_relative_to(root), package.__file__
        for value in run(*arguments):
            pipe.send(("value", value))
        error = ""
    except Exception as broken:
        error = f"{type(broken).__name__}: {broken}"[:300]
    pipe.send(("end", error))


def results(order: Sequence[int] | None = None, traced: bool = False) -> Iterator[tuple[int, str, str, list]]:
    """Yield, in a fork, the number, name, result and touched lines of cells of every kind.

    Those at the canaries' scale, on files, come first, then those at scale smoke on drawn signs.

    Args:
        order: Numbers of the cells in the order to run them; all cells in their own order if None.
        traced: Whether to note which lines of the package run. If not, there are none; nor are lines that ran before.
    """
    touched: set[tuple[str, int]] = set()
    if traced:
        _trace(touched)
    canaries = importlib.import_module("canaries")
    cache = Path(os.environ["EXTRACTLIB_CACHE"])
    files = canaries.write_files(cache)
    canaries.SCALES["canary"] = canaries.canary_profile()
    cells = [(cell, files) for table in canaries.TABLES for cell in _cells(canaries, table, "canary", 1)]
    cells += [(cell, None) for table in canaries.TABLES for cell in _cells(canaries, table, "smoke", 0)]
    cells = list(dict((cell, (cell, folders)) for cell, folders in cells).values())
    store = canaries.Store(cache / "store")
    for number in range(len(cells)) if order is None else order:
        cell, folders = cells[number]
        name = f"{cell.scale}: {canaries.name_of(cell)}"
        try:
            row = canaries.run_cell(cell, store=store, folders=folders, device="cpu")
        except Exception as broken:
            raise RuntimeError(f"{name}: {type(broken).__name__}: {broken}") from broken
        yield number, name, json.dumps(canaries.timeless(row.result), sort_keys=True), sorted(touched)
        touched.clear()


def _cells(canaries: object, table: str, scale: str, seed: int) -> list:
    cells = canaries.table_cells(table, canaries.SCALES[scale], seeds=[seed])
    return [cell for cell in cells if cell.task in ("gtsrb", "signs")]


def _trace(touched: set[tuple[str, int]]) -> None:
    root = f"{Path(importlib.import_module('extractlib').__file__).parents[1]}/"
    packages, start = (f"{root}{LIBRARY}/", f"{root}{BOOK}/"), len(root)

    def local(frame, event, argument):
        touched.add((frame.f_code.co_filename[start:], frame.f_lineno))
        return local

    def trace(frame, event, argument):
        return local(frame, event, argument) if frame.f_code.co_filename.startswith(packages) else None

    threading.settrace(trace)
    sys.settrace(trace)


def complaints() -> Iterator[str]:
    """Yield, in a fork, which canaries changed without a new version, as worded by `tests/canaries.py`."""
    canaries = importlib.import_module("canaries")
    known, recorded = canaries.canaries(), canaries.read()
    for name, canary in known.items():
        try:
            found = {name: json.loads(json.dumps(canary.run()))}
        except Exception as broken:
            raise RuntimeError(f"{name}: {type(broken).__name__}: {broken}") from broken
        yield from (line for line in canaries.faults(recorded, found, known) if "bump one or undo" in line)


# -- judging ------------------------------------------------------------------------


@dataclass(frozen=True)
class Baseline:
    """What the unchanged code does.

    Attributes:
        results: The result of each cell.
        touched: The lines that each cell is the first to run, with those that run at import in the first set.
    """

    results: list[str]
    touched: list[set[tuple[str, int]]]

    def order(self, mutant: Mutant) -> list[int]:
        """Return the cells, starting with those that run the changed lines; none if no cell runs them."""
        where = {(mutant.file, line) for line in mutant.lines}
        reached = [number for number, lines in enumerate(self.touched) if lines & where]
        return reached and [*reached, *(number for number in range(len(self.touched)) if number not in reached)]


def baseline(root: Path) -> Baseline:
    """Run the unchanged code twice, the second time in reverse order, and return what it does.

    Raises:
        RuntimeError: A cell or canary fails, or a result depends on the order of the cells.
    """
    cells, error = forked(root, results, None, True)
    backward, other = forked(root, results, list(range(len(cells)))[::-1])
    told, third = forked(root, complaints)
    if error or other or third or told:
        raise RuntimeError(f"the unchanged code fails: {[error, other, third, *told]}")
    for (_, name, result, _), (_, _, again, _) in zip(cells, backward[::-1], strict=True):
        if result != again:
            raise RuntimeError(f"{name} depends on the order of the cells")
    return Baseline([result for _, _, result, _ in cells], [set(map(tuple, lines)) for *_, lines in cells])


def judge(root: Path, mutant: Mutant, usual: Baseline) -> dict[str, str]:
    """Run a mutant and return its ``verdict`` with the ``cell`` that differs and the first ``canary`` that fails.

    The verdict is ``"caught"``, ``"survives"``, ``"crashes"`` if a cell fails before any differs, ``"equal"`` if no
    cell differs, and ``"not reached"`` if no cell runs the lines.
    """
    order = usual.order(mutant)
    if not order:
        return {"verdict": "not reached", "cell": "", "canary": ""}
    file = root / mutant.file
    whole = file.read_bytes()
    try:
        file.write_text(mutant.code)
        canary = _first(root)
        verdict, cell = _difference(root, order, usual.results)
    finally:
        file.write_bytes(whole)
    if verdict == "differs":
        verdict = "caught" if canary else "survives"
    return {"verdict": verdict, "cell": cell, "canary": canary}


def _first(root: Path) -> str:
    told, error = forked(root, _until, complaints)
    return told[0] if told else error


def _difference(root: Path, order: Sequence[int], expected: Sequence[str]) -> tuple[str, str]:
    told, error = forked(root, _until, _differing, order, expected)
    return ("differs", told[0]) if told else ("crashes", error) if error else ("equal", "")


def _differing(order: Sequence[int], expected: Sequence[str]) -> Iterator[str]:
    for number, name, result, _ in results(order):
        if result != expected[number]:
            yield f"{name}: {result[:600]}"


def _until(run: Callable[..., Iterator], *arguments: object) -> Iterator:
    return islice(run(*arguments), 1)


def main() -> None:
    """Sample, judge and log mutants until enough of them change a cell or time runs out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    parser.add_argument("--count", type=int, default=60, help="number of mutants that change a cell")
    parser.add_argument("--minutes", type=float, default=75, help="begin no mutant after this many minutes")
    parser.add_argument("--log", type=Path, default=ROOT / "_build" / "mutants.jsonl", help="file to continue")
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    for name in LOADED:
        importlib.import_module(name)
    options.log.parent.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in options.log.read_text().splitlines()] if options.log.exists() else []
    verdicts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, options.log.open("a") as log:
        root = Path(folder).resolve()
        for name in (LIBRARY, BOOK, Path("tests")):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "requirements.txt", root)
        usual = baseline(root)
        for number, mutant in enumerate(sampled(root, options.seed)):
            entry = {"file": mutant.file, "line": mutant.lines[0], "kind": mutant.kind}
            entry |= {"before": mutant.before, "after": mutant.after}
            if number < len(done):
                if any(done[number][key] != value for key, value in entry.items()):
                    raise SystemExit(f"{options.log} is from other code or another seed: name another file")
                entry = done[number]
            else:
                entry |= judge(root, mutant, usual)
                print(json.dumps(entry), file=log, flush=True)
            verdicts[entry["verdict"]] += 1
            counted = verdicts["caught"] + verdicts["survives"]
            print(f"{counted:>3} {entry['verdict']:<12} {entry['file']}:{entry['line']} {entry['kind']}", flush=True)
            if counted >= options.count or time.monotonic() > deadline:
                break
    print(f"{verdicts['caught']} of {counted} mutants that change a cell make a canary fail; {dict(verdicts)}")


if __name__ == "__main__":
    main()
