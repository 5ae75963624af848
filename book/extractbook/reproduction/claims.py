"""The second edition's claims: ``paper/claims.toml`` states the tests, and this judges them on a frame of rows.

A bound is a sum of terms, each a column of the rows of one cell; the authors' value is the same sum over their tables,
or nothing. What is no such sum is a column that `prepared` adds.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cache, partial, reduce
from itertools import product
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from extractbook.reproduction import editions, judging, paper
from extractbook.reproduction.judging import Bound, Counts, Entry, Limit, Quantity, Verdict
from extractbook.reproduction.scales import Scale, read_toml
from extractlib.errors import InputError

FILE = Path(paper.__file__).with_name("claims.toml")

ACROSS = "across"
"""Stands for a task where a bound is the mean over all tasks."""

RESAMPLED = "resampled."
"""What a column begins with that holds, as a list, a number under resamples of the test images."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim with its test, as ``claims.toml`` has it.

    Attributes:
        id: ``"C1"`` to ``"C15"`` for the paper's, ``"B1"`` and on for ours.
        statement: The claim in a sentence.
        authors: The figures it rests on, in words.
        test: What has to come out for it to hold, in words.
        tables: The tables whose rows it needs.
        bounds, preconditions, shown: The numbers of the test.
        needed: How many of five tasks must hold; 0 for all that are testable.
        photos: Why it has no verdict on photographs; empty where it has one.
        photos_looks: First and last seed of each look on photographs, where they are not the edition's.
    """

    id: str
    statement: str
    authors: str
    test: str
    tables: tuple[str, ...]
    bounds: tuple[Limit, ...]
    preconditions: tuple[Limit, ...] = ()
    shown: tuple[Limit, ...] = ()
    needed: int = 0
    photos: str = ""
    photos_looks: tuple[tuple[int, int], ...] = ()

    def command(self, scale: str) -> str:
        """Return the command that makes its rows at a scale."""
        return f"extractbook results --scale {scale}" + "".join(f" --table {table}" for table in self.tables)


@cache
def claims() -> tuple[Claim, ...]:
    """Return the claims in their order, the paper's and then ours."""
    return tuple(
        Claim(
            **entry | {kind: tuple(map(_limit, entry.get(kind, ()))) for kind in ("bounds", "preconditions", "shown")}
        )
        for entry in _content()["claims"]
    )


@cache
def _content() -> dict[str, Any]:
    return read_toml(FILE)


def _limit(entry: Mapping[str, Any]) -> Limit:
    groups = _content()["groups"]
    return Limit(**{**entry, "tasks": groups[entry["tasks"]], "others": groups.get(entry.get("others"), ())})


# -- what the rows have for a bound ------------------------------------------------


class Evidence:
    """The rows of one scale, looked up by cell at the seeds of one look.

    Args:
        frame: Rows of any tables of one scale that count (see `results.frame`).
        scale: The scale.
        seeds: The seeds.

    Raises:
        InputError: A row is of another scale.
    """

    def __init__(self, frame: pd.DataFrame, scale: Scale, seeds: Sequence[int] = ()):
        foreign = set(frame["scale"]) - {scale.name}
        if foreign:
            raise InputError(f"rows of scale {min(foreign)!r} among those of {scale.name!r}: claims are of one scale")
        self.frame, self.scale, self.seeds = frame, scale, seeds
        lists = (column for column in frame if str(column).startswith(RESAMPLED))
        self.resamples = max((len(values) for column in lists for values in frame[column].dropna()), default=0)
        own = max((number for number in scale.realistic_budgets if 4 * number <= scale.budget), default=0)
        steps = scale.surrogate.steps
        self._names = vars(scale) | {"middle_budget": scale.middle_budget, "own_number": own, "public_number": 4 * own}
        self._names |= {"steps": steps, "three_steps": 3 * steps}
        self._plain = {key: _named(value, self._names) for key, value in _content()["plain"].items()}
        self._cells: dict[tuple, list[int]] = defaultdict(list)
        for experiment, rows in frame.groupby("experiment"):
            names = ("experiment", "task", *_content()["cells"].get(experiment, self._plain))
            for index, *cell in zip(rows.index, *(rows[name] for name in names), strict=True):
                self._cells[tuple(cell)].append(index)

    def at(self, seeds: Sequence[int]) -> "Evidence":
        """Return the same rows, of which those at other seeds are looked up."""
        other = copy(self)
        other.seeds = seeds
        return other

    def rows(
        self, task: str, *, experiment: str = "extraction", seeds: Sequence[int] = (), **cell: Any
    ) -> pd.DataFrame:
        """Return the rows of a task's plain cell with changes, by seed, at the look's seeds or others.

        Raises:
            InputError: There is no such setting.
        """
        names = _content()["cells"].get(experiment, list(self._plain))
        for name in cell.keys() - set(names):
            raise InputError(f"cells of experiment {experiment!r} are not told apart by {name!r}")
        settings = self._plain | cell
        rows = self.frame.loc[self._cells.get((experiment, task, *(settings[name] for name in names)), [])]
        return rows[rows["seed"].isin(seeds or self.seeds)].sort_values("seed")

    def find(self, column: str, task: str, *, images: str = "images", **cell: Any) -> Quantity:
        """Return a column of `rows`, or one of `DERIVED`; ``images`` says how many images or accounts are behind it.

        Raises:
            InputError: There is no such setting, or two rows of one cell differ.
        """
        if column in DERIVED:
            return DERIVED[column](self, task, cell)
        rows = self.rows(task, **cell)
        rows = rows.dropna(subset=column) if column in rows else rows.iloc[:0]
        return self.quantity(rows, rows.get(column, ()), rows.get(images), rows.get(RESAMPLED + column))

    def quantity(self, rows: pd.DataFrame, values: Any, images: Any, resampled: Any = None) -> Quantity:
        """Return numbers, one a row, as a quantity.

        Raises:
            InputError: Two numbers of one seed differ.
        """
        numbers = np.asarray(values, dtype=float)[:, None]
        alone = resampled is None or rows.empty
        draws = np.repeat(numbers, self.resamples, axis=1) if alone else np.stack(resampled)
        found = pd.DataFrame(np.hstack([numbers, draws]), index=rows["seed"].to_numpy())
        several = found[0][found.index.duplicated(keep=False)]
        for seed in several.index[several != several.groupby(level=0).transform("first")]:
            task = rows["task"].iloc[0]
            raise InputError(f"two rows for task {task!r} and seed {seed} of one cell differ: give one")
        fewest = np.nan if images is None else np.asarray(images, dtype=float).min(initial=np.inf)
        return Quantity(found[~found.index.duplicated()], float(fewest), frozenset(rows.index))

    def bounds(self, stated: Limit, task: str) -> Iterator[Bound]:
        """Yield what the rows have for a bound, for each of its other tasks and of its words (see `Limit`)."""
        others = [other for other in self.scale.tasks if other != task and paper.drawn(other) in stated.others]
        for words, other in product(stated.each or ({},), others if stated.others else ("",)):
            names = self._names | {"task": task, "other": other, **words}
            names["scratch_network"] = self.scale.scratch_networks.get(task, "")
            over = self.scale.tasks if task == ACROSS else (task,)
            terms = [(term, names | {"task": each}) for each in over for term in stated.counts or stated.terms]
            values, theirs = [self._term(*term) for term in terms], [_authors(*term) for term in terms]
            known = [value for value in theirs if value is not None]
            authors = round(sum(known), 3) if len(known) == len(terms) and task != ACROSS else None
            quantity = Counts(*values) if stated.counts else reduce(add, values) * (1 / len(over))
            yield judging.bound(stated, quantity, seeds=self.seeds, words=names, authors=authors)

    def _term(self, term: Mapping[str, Any], names: Mapping[str, Any]) -> Quantity:
        asked = {"column": "recovery", "task": "{task}", "times": 1.0, **term}
        asked = {key: _named(value, names) for key, value in asked.items()}
        times = asked.pop("times")
        return self.find(asked.pop("column"), asked.pop("task"), **asked) * times


def _named(value: Any, names: Mapping[str, Any]) -> Any:
    """Return what a value stands for: a name in braces alone for the thing itself, several within a text for text."""
    if not isinstance(value, str):
        return value
    alone = value[1:-1] if value.startswith("{") and value.endswith("}") else ""
    return names[alone] if alone in names else value.format_map(names)


def _authors(term: Mapping[str, Any], names: Mapping[str, Any]) -> float | None:
    """Return the authors' value of one term, or None where they have none of this very quantity."""
    cell = {"column": "recovery", **term}
    task, times = _named(cell.pop("task", "{task}"), names), cell.pop("times", 1)
    for known in _content()["authors"]:
        if cell == {"column": "recovery", **known["cell"]}:
            rows = paper.tables()[known["table"]]["rows"]
            row = rows.get(paper.scratch_victim(task) if known.get("scratch") else paper.victim(task), {})
            value = row.get(known["entry"])
            return value and times * (np.mean(value) / 100 if isinstance(value, list) else value)
    return None


# -- columns that are no numbers of the results ----------------------------------------


def _ratio(first: str, second: str) -> Any:
    return lambda e, task, cell: e.find(first, task, **cell) / e.find(second, task, **cell)


def _filled(e: Evidence, task: str, cell: Mapping[str, Any]) -> Quantity:
    """Return the recovery with truncated answers filled in as agrees better with the API on held-out queries."""
    even = e.find("recovery", task, **cell)
    if not cell.get("granularity", "").startswith("top-"):
        return even
    other = {**cell, "fill": "renormalized"}
    agrees = e.find("held_out_agreement", task, **other).above(e.find("held_out_agreement", task, **cell))
    return even + agrees * (e.find("recovery", task, **other) - even)


def _worst_class(place: int) -> Any:
    def derived(e: Evidence, task: str, cell: Mapping[str, Any]) -> Quantity:
        rows = e.rows(task, **cell)
        found = [worst_class(row) for _, row in rows.iterrows()]
        return e.quantity(rows, [one[place] for one in found], [one[2] for one in found])

    return derived


def worst_class(row: Mapping[str, Any]) -> tuple[float, int, int]:
    """Return how far the class that the first half of the test images recovers worst is below the mean on the second.

    Args:
        row: Of the experiment ``"classes"``.

    Returns:
        The shortfall, how many classes were left out, since they have fewer than 100 test images or a victim accuracy
        below 0.2 on a half, and the images behind the shortfall.
    """
    victim, surrogate = (np.array(row[f"{model}_accuracy"]) for model in ("victim", "surrogate"))
    images = np.array(row["victim_confusion"]).sum(axis=1)
    kept = (victim >= 0.2).all(axis=0) & (images >= 100)
    if not kept.any():
        return np.nan, len(kept), 1
    recovered = surrogate[:, kept] / victim[:, kept]
    worst = int(recovered[0].argmin())
    return float(recovered[1].mean() - recovered[1, worst]), int((~kept).sum()), int(images[kept][worst] // 2)


def _controls(e: Evidence, column: str, task: str) -> tuple[pd.Series, frozenset[int]]:
    """Return a column of the independent controls with the rows behind it: even seeds have weights A, odd ones B."""
    seeds = editions.controls()
    halves = [
        e.find(column, task, experiment="control", surrogate_weights=weights, seeds=seeds[start::2])
        for start, weights in ((seeds[0] % 2, "A"), (1 - seeds[0] % 2, "B"))
    ]
    values = pd.concat([half.by_seed for half in halves])
    complete = values if len(values) == len(seeds) else values * np.nan
    return complete, halves[0].rows | halves[1].rows


def _accused(e: Evidence, task: str, cell: Mapping[str, Any]) -> Quantity:
    """Return 1 where a copy repeats more errors than all but two of the controls."""
    copies, (shares, rows) = e.find("errors_repeated", task, **cell), _controls(e, "errors_repeated", task)
    complete = len(shares) > 0 and shares.notna().all()
    accused = copies.above(float(shares.nlargest(3).min())) if complete else copies * np.nan
    return replace(accused, rows=copies.rows | rows)


def _matched_control(e: Evidence, task: str, cell: Mapping[str, Any]) -> Quantity:
    """Return the mean validation accuracy of the controls, at the seeds of the copies."""
    accuracies, rows = _controls(e, "validation_accuracy", task)
    same = e.find("validation_accuracy", task, **cell) * 0 + float(accuracies.mean())
    return replace(same, rows=same.rows | rows)


def _flag_time(e: Evidence, task: str, cell: Mapping[str, Any]) -> Quantity:
    rows = e.rows(task, experiment="accounts")
    time = e.scale.flag_times.get(task, {}).get(cell["detector"], 0)
    return e.quantity(rows, [time] * len(rows), np.full(len(rows), np.inf))


DERIVED = {
    "constant": _ratio("constant_accuracy", "victim_accuracy"),
    "marks": _ratio("marks_repeated", "marked"),
    "recovery_filled": _filled,
    "shortfall": _worst_class(0),
    "classes_left_out": _worst_class(1),
    "accused": _accused,
    "copies": lambda e, task, cell: e.find("errors_repeated", task, **cell) * 0 + 1,
    "control_validation": _matched_control,
    "inferred": lambda e, task, cell: (e.find("dataset_inference_p", task, **cell) * -1).above(-0.05),
    "flag_time": _flag_time,
}
"""What a test computes from several columns or rows: a function of the evidence, the task and the cell's changes."""


# -- verdicts --------------------------------------------------------------------------


def verdicts(frame: pd.DataFrame, scale: Scale, *, only: str = "") -> list[Entry]:
    """Return an entry for each claim, or `only` one, and each task that it is judged on.

    Args:
        frame: Rows of any tables of the scale that count, at any seeds (see `editions.counts`).
        scale: The scale.
        only: A claim's id.

    Raises:
        InputError: A row is of another scale, two rows of one cell differ, or one does not say how many images are
            behind it.
    """
    edition, evidence, found = editions.of_scale(scale.name), Evidence(frame, scale), []
    for claim in (claim for claim in claims() if only in ("", claim.id)):
        own = editions.spans(claim.photos_looks) if edition == "photos" else []
        looks = [evidence.at(seeds) for seeds in own or editions.looks(edition)]
        entered = {task for stated in claim.bounds for task in stated.tasks}
        tasks = [task for task in (*scale.tasks, ACROSS) if (paper.drawn(task) or task) in entered]
        found += [_entry(claim, task, looks) for task in tasks]
    return found


def _entry(claim: Claim, task: str, looks: Sequence[Evidence]) -> Entry:
    def bounds(limits: Sequence[Limit], look: Evidence) -> list[Bound]:
        entered = [stated for stated in limits if (paper.drawn(task) or task) in stated.tasks]
        return [bound for stated in entered for bound in look.bounds(stated, task)]

    preconditions = bounds(claim.preconditions, looks[0])
    missing = [str(one) for one in preconditions if one.missing]
    failing = [one for one in preconditions if not one.missing and not judging.fulfilled(one)]
    skipped = {one.stated.only for one in failing}
    limits = [stated for stated in claim.bounds if not skipped & {"", stated.name}]
    judged: judging.Judged
    if claim.photos and editions.of_scale(looks[0].scale.name) == "photos":
        judged = Verdict.NOT_RUN, claim.photos, (), 1
    elif missing:
        judged = Verdict.NOT_RUN, "; ".join(missing), (), 1
    elif not limits:
        judged = Verdict.NOT_TESTABLE, "", (), 1
    else:
        judged = judging.judge(*(partial(bounds, limits, look) for look in looks))
    verdict, reason, deciding, taken = judged
    reason = "; ".join(filter(None, [reason, *(f"not testable: {one}" for one in failing)]))
    shown = bounds(claim.shown, looks[taken - 1])
    return Entry(claim.id, task, verdict, reason, deciding, tuple(preconditions), tuple(shown), taken)


def matrix(entries: Sequence[Entry]) -> pd.DataFrame:
    """Return the verdicts, a line a claim, a column a task; the column ``claim`` has the word on the whole claim."""
    lines = {}
    for claim in claims():
        words = {entry.task: entry.verdict for entry in entries if entry.claim == claim.id}
        word = judging.summarize(list(words.values()), needed=claim.needed)
        lines[claim.id] = {name: str(verdict) for name, verdict in {**words, "claim": word}.items()}
    return pd.DataFrame.from_dict(lines, orient="index")


def expected_false(entries: Sequence[Entry]) -> tuple[int, float]:
    """Return how many cells of the matrix were judged, and how many false ones to expect among them at most."""
    judged = (Verdict.HOLDS, Verdict.DOES_NOT_HOLD, Verdict.UNDECIDED)
    looks = [entry.looks for entry in entries if entry.verdict in judged]
    return len(looks), sum(looks) * judging.ERROR
