"""The ledger: the paper's claims beside our results, with a verdict on each.

A claim holds or does not hold only if, for each bound of its test, the 95% interval over the seeds lies wholly on one
side of the bound. The tests stand in `paper.claims` and were written before any result.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd

from extractbook.reproduction import edition_1, paper
from extractbook.reproduction.cells import WATERMARK, Cell, Row
from extractbook.reproduction.experiments.shortcut import PROCESSING
from extractbook.reproduction.results import frame
from extractbook.reproduction.scales import scale
from extractlib.data.sources import Source
from extractlib.errors import InputError
from extractlib.metrics import summary, t_interval
from extractlib.store import digest

FEWEST_SEEDS = 2
"""An interval over fewer seeds does not exist."""

FEW = 2
"""How many bounds that hold are told one by one."""

MISSING = "its rows, or a task that the test names, are missing"


class Verdict(StrEnum):
    """What the ledger says of a claim."""

    HOLDS = "holds"
    DOES_NOT_HOLD = "does not hold"
    UNDECIDED = "undecided"
    NOT_TESTABLE = "not testable"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Bound:
    """One bound of a test, on one task.

    Attributes:
        statement: The bound in words, for example ``"r(signs) ≥ 0.75"``.
        authors: The authors' value of the same quantity, or None.
        values: Our value of each seed, in the order of the seeds.
        interval: The 95% t interval of the values, or None where there are fewer than `FEWEST_SEEDS`.
        holds: Whether the interval lies wholly on the bound's right side (True) or wrong side (False); None where it
            reaches across, or where there is none.
        margin: How far the interval's nearer end is on the right side of the bound; None without an interval.
    """

    statement: str
    authors: float | None
    values: tuple[float, ...]
    interval: tuple[float, float] | None
    holds: bool | None
    margin: float | None = None

    def __str__(self) -> str:
        if self.interval is None:
            return f"{self.statement}: {len(self.values)} of at least {FEWEST_SEEDS} seeds"
        low, high = self.interval
        return f"{self.statement}: {summary(self.values)[0]:.3f}, interval {low:.3f} to {high:.3f}"


@dataclass(frozen=True)
class Provenance:
    """Where results come from, over all their rows.

    Attributes:
        commits, devices, versions: Each that occurs, once; a version is ``"torch 2.6.0"``.
        dates: Of the first and the last row (ISO 8601, UTC).
        seeds: Ascending.
        cells: Number of rows.
        seconds: Sum over the rows.
        data: Digest of the fingerprints of all images that were used.
        checked: Number of rows of the first edition that were checked by a sample (see `edition_1`).
    """

    commits: tuple[str, ...]
    dates: tuple[str, str]
    devices: tuple[str, ...]
    versions: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: int
    seconds: float
    data: str
    checked: int

    @classmethod
    def of(cls, rows: Iterable[Row]) -> "Provenance":
        """Return the provenance of at least one row."""
        rows = list(rows)
        records = [row.provenance for row in rows]
        dates = sorted(record["date"] for record in records)
        # Rows of the first edition have the versions of the libraries as their only ones.
        libraries = [record.get("libraries") or record["versions"] for record in records]
        return cls(
            commits=_distinct(record["commit"] for record in records),
            dates=(dates[0], dates[-1]),
            devices=_distinct(record["device"] for record in records),
            versions=_distinct(" ".join(pair) for names in libraries for pair in names.items()),
            seeds=_distinct(row.cell.seed for row in rows),
            cells=len(rows),
            seconds=sum(record["seconds"] for record in records),
            data=digest(*_distinct(json.dumps(record["data"], sort_keys=True) for record in records)),
            checked=edition_1.checked(rows),
        )


@dataclass(frozen=True)
class Entry:
    """A claim with what came of its test.

    Attributes:
        claim: The claim.
        verdict: The verdict by the rules above.
        reason: Why, in words: the bounds that decided.
        bounds: Each bound of the test; empty where the claim was not run.
        tasks: The tasks the test was run on; a scale may have fewer than the paper.
        provenance: Where the rows come from; None where there are none.
    """

    claim: paper.Claim
    verdict: Verdict
    reason: str
    bounds: tuple[Bound, ...] = ()
    tasks: tuple[str, ...] = ()
    provenance: Provenance | None = None

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the rows."""
        return self.provenance.seeds if self.provenance else ()


@dataclass(frozen=True)
class Skipped:
    """A part of a test whose precondition fails.

    Attributes:
        reason: The precondition, in words.
    """

    reason: str


KIND = [field.name for field in fields(Cell) if field.name != "seed"]
"""The fields that cells share whose rows differ in their seeds alone."""


class Evidence:
    """The rows of one scale, looked up by what their cells are.

    Args:
        rows: Rows of any tables, of one scale.

    Attributes:
        rows: The rows.
        scale: The scale, or None without rows.
        tasks: The tasks of the reproduction, in order of their names.

    Raises:
        InputError: The rows are of several scales, or two of the same cell differ.
    """

    def __init__(self, rows: Iterable[Row]):
        self.rows = list(rows)
        scales = _distinct(row.cell.scale for row in self.rows)
        if len(scales) > 1:
            raise InputError(f"rows of the scales {', '.join(scales)}: a ledger is of one scale")
        self.scale = scale(scales[0]) if scales else None
        distinct: dict[Cell, Row] = {}
        for row in self.rows:  # two tables may share a cell
            if distinct.setdefault(row.cell, row).result != row.result:
                raise InputError(
                    f"two rows for task {row.cell.task!r} and seed {row.cell.seed} of the same cell differ: give one"
                )
        table = frame(distinct.values())
        table["row"] = list(distinct.values())
        self._table = table.set_index([*KIND, "seed"]).sort_index()
        self._plain: dict[str, Cell] = {}
        for cell in sorted({replace(cell, seed=0) for cell in distinct}, key=lambda cell: -cell.budget):
            sides = {
                "task": cell.task,
                "victim": cell.victim,
                "surrogate": cell.victim,
                "pool": Source(self.scale.pool),
            }
            if cell == Cell(scale=self.scale.name, budget=cell.budget, seed=0, **sides):
                self._plain.setdefault(cell.task, cell)
        self.tasks = tuple(sorted(self._plain))

    @property
    def reproduction(self) -> list[Row]:
        """The rows of the reproduction table: the plain attack with the whole budget."""
        return [row for task in self.tasks for row in self.seeds_of(task).values()]

    @property
    def scratch_tasks(self) -> list[str]:
        """The tasks that also have a victim without public weights."""
        return [task for task in self.tasks if task in self.scale.scratch_networks]

    def tasks_like(self, *drawn: str) -> list[str]:
        """Return the tasks that stand for the same of the authors' victims as one of the drawn tasks."""
        return [task for task in self.tasks if paper.drawn(task) in drawn]

    def find(self, task: str, **changes) -> pd.DataFrame:
        """Return the lines (see `results.frame`), by seed, of a task's plain cell with `changes`; perhaps none."""
        if task in self._plain:
            cell = replace(self._plain[task], **changes)
            fields = cell.to_json()
            kind = tuple(fields[name] for name in KIND)
            if kind in self._table.index:
                return self._table.loc[kind]
        return self._table.iloc[:0]

    def series(self, task: str, column: str = "recovery", **changes) -> pd.Series:
        """Return one column of `find`, by seed, without the rows that have nothing there."""
        return self.find(task, **changes).get(column, pd.Series(dtype=float)).dropna().infer_objects()

    def seeds_of(self, task: str, **changes) -> dict[int, Row]:
        """Return the rows of `find` by seed."""
        return self.find(task, **changes)["row"].to_dict()

    def values(self, task: str, *path: str, **changes) -> dict[int, float]:
        """Return one number a seed: what lies at `path` (``"recovery"`` if none) in the results of `seeds_of`."""
        return self.series(task, ".".join(path) or "recovery", **changes).to_dict()

    def measured(self, task: str, experiment: str, *path: str, **changes) -> dict[int, float]:
        """Return one number a seed from the rows of an experiment that attacks nothing."""
        return self.values(task, *path, experiment=experiment, **(NO_ATTACK | changes))

    def detection(self, task: str, column: str) -> pd.Series:
        """Return one column of the detectors' rows, by seed."""
        return self.series(task, column, experiment="detection", **NO_ATTACK)

    def gap(self, task: str, **changes) -> pd.Series:
        """Return, by seed, by how much the plain cell's recovery is above that of the cell with `changes`."""
        return self.series(task) - self.series(task, **changes)

    def honest_loss(self, task: str, policy: str) -> pd.Series:
        """Return, by seed, how much accuracy an honest user loses under a policy."""
        return self.series(task, "victim_accuracy") - self.series(task, "honest_accuracy", defense=policy)


NO_ATTACK = {"surrogate": "", "budget": 0}
"""What the cells have in common that attack nothing."""


def verdicts(rows: Iterable[Row]) -> tuple[Entry, ...]:
    """Return an entry for each claim of the paper and each of ours, in their order.

    Args:
        rows: Rows of all tables of one scale.

    Raises:
        InputError: The rows are of several scales, or two of the same cell differ.
    """
    evidence = Evidence(rows)
    return tuple(_entry(claim, evidence) for claim in (*paper.claims(), *paper.our_claims()))


def reproduction(rows: Iterable[Row]) -> list[Row]:
    """Return the rows of the reproduction table: the plain attack with the whole budget.

    Raises:
        InputError: The rows are of several scales, or two of the same cell differ.
    """
    return Evidence(rows).reproduction


def bound(
    quantity: str, sign: str, limit: float, values: Iterable[float], *, note: str = "", authors: float | None = None
) -> Bound:
    """Return a bound, judged by the 95% t interval of its values.

    Args:
        quantity: What is bounded, in words.
        sign: ``"≥"``, ``">"``, ``"≤"`` or ``"<"``; with the second and the last the limit itself is the wrong side.
        limit: What it is bounded by.
        values: One value a seed; what is NaN, as the difference of what two cells do not share, is left out.
        note: What follows in the statement.
        authors: The authors' value.
    """
    values = tuple(value for value in values if not np.isnan(value))
    statement = f"{quantity} {sign} {limit:g}{note}" if limit >= 0 else f"{quantity} {sign} −{-limit:g}{note}"
    if len(values) < FEWEST_SEEDS:
        return Bound(statement, authors, values, None, None)
    interval = low, high = t_interval(values)
    if sign in "≤<":
        low, high, limit = -high, -low, -limit
    right, wrong = (low > limit, high <= limit) if sign in "<>" else (low >= limit, high < limit)
    return Bound(statement, authors, values, interval, right if right or wrong else None, low - limit)


def judge(parts: Iterable[Bound | Skipped], *, least: int | None = None) -> tuple[Verdict, str]:
    """Return the verdict on a claim and the reason for it.

    Args:
        parts: Its bounds, and what had to be skipped.
        least: How many bounds must hold; all if None.
    """
    parts = list(parts)
    bounds = [part for part in parts if isinstance(part, Bound)]
    skipped = [part.reason for part in parts if isinstance(part, Skipped)]
    if not bounds:
        return (Verdict.NOT_TESTABLE, "; ".join(skipped)) if skipped else (Verdict.NOT_RUN, MISSING)
    needed = len(bounds) if least is None else min(least, len(bounds))
    missing = [bound for bound in bounds if bound.interval is None]
    failing, holding, open_ = ([bound for bound in bounds if bound.holds is state] for state in (False, True, None))
    if missing:
        verdict, deciding = Verdict.NOT_RUN, missing
    elif len(holding) >= needed:
        verdict, deciding = Verdict.HOLDS, holding
    elif len(bounds) - len(failing) < needed:
        verdict, deciding = Verdict.DOES_NOT_HOLD, failing
    else:
        verdict, deciding = Verdict.UNDECIDED, open_
    told = list(map(str, deciding))
    if verdict is Verdict.HOLDS and len(deciding) > FEW:
        closest = min(deciding, key=lambda bound: bound.margin)
        told = [f"{len(deciding)} of {len(bounds)} bounds hold, and the closest is {closest}"]
    return verdict, "; ".join([*told, *(f"not testable: {reason}" for reason in skipped)])


def _entry(claim: paper.Claim, evidence: Evidence) -> Entry:
    parts = list(TESTS[claim.id](evidence, claim.bounds))
    verdict, reason = judge(parts, least=claim.bounds.get("tasks"))
    bounds = tuple(part for part in parts if isinstance(part, Bound))
    if verdict is Verdict.NOT_RUN:
        return Entry(claim, verdict, reason, bounds)
    return Entry(claim, verdict, reason, bounds, evidence.tasks, Provenance.of(evidence.reproduction))


# -- the tests, one a claim ---------------------------------------------------

MANY_ALIKE = ("birds", "things")
"""Tasks whose classes are many and alike."""

BALANCED = "binary.pool.balanced_accuracy"

Parts = Iterator[Bound | Skipped]
Limits = Mapping[str, float]
TESTS: dict[str, Callable[[Evidence, Limits], Parts]] = {}
"""How each claim gets its bounds; a bound without rows has no values, and the claim is then not run."""


def _test(
    claim: str, each: Callable[[Evidence], Iterable[str]] = lambda evidence: evidence.tasks, **options
) -> Callable:
    """Enter a function as a claim's test; it yields the bounds of one task, or of one of what `each` returns.

    It gets the evidence, the task and the limits of the claim's bounds, which are stated with the claim alone.
    """

    def enter(function: Callable) -> Callable:
        TESTS[claim] = lambda evidence, limits: (
            part for task in each(evidence) for part in function(evidence, task, limits, **options)
        )
        return function

    return enter


@_test("C1")
def _each_task_is_recovered(evidence: Evidence, task: str, limits: Limits) -> Parts:
    yield bound(f"r({task})", "≥", limits["recovery"], evidence.series(task), authors=paper.recovery(task))


@_test("C2")
def _retina_is_recovered_worst(evidence: Evidence, task: str, limits: Limits) -> Parts:
    for worst in evidence.tasks_like("retina"):
        if task != worst:
            more = evidence.series(task) - evidence.series(worst)
            theirs = _difference(paper.recovery(task), paper.recovery(worst))
            yield bound(f"r({task}) − r({worst})", ">", limits["difference"], more, authors=theirs)


@_test("C3", each=lambda evidence: evidence.tasks_like(*MANY_ALIKE))
def _label_costs_most_where_classes_are_alike(evidence: Evidence, task: str, limits: Limits) -> Parts:
    def authors(task: str) -> float | None:
        return _difference(paper.recovery(task), paper.recovery(task, "granularity"))

    drop = evidence.gap(task, granularity="label")
    yield bound(f"drop({task})", ">", limits["drop"], drop, authors=authors(task))
    for other in evidence.tasks:
        if other not in evidence.tasks_like(*MANY_ALIKE):
            more, theirs = drop - evidence.gap(other, granularity="label"), _difference(authors(task), authors(other))
            yield bound(f"drop({task}) − drop({other})", ">", limits["difference"], more, authors=theirs)


@_test("C4")
def _granularity_in_between_costs_in_between(evidence: Evidence, task: str, limits: Limits) -> Parts:
    on, drop = f" on {task}", evidence.gap(task, granularity="label")
    given = bound("r(full) − r(label)", ">", limits["precondition"], drop, note=on)
    if given.interval and not given.holds:
        yield Skipped(str(given))
    shown = {str(row.cell.granularity) for row in evidence.rows if row.cell.task == task}
    for kind in ("top-", "rounded-") if given.holds else ():
        between = [name for name in shown if name.startswith(kind)]
        between.sort(key=lambda name: float(name.removeprefix(kind)), reverse=True)
        for more, less in pairwise(["full", *between, "label"]):
            gain = evidence.series(task, granularity=less) - evidence.series(task, granularity=more)
            yield bound(f"r({less}) − r({more})", "≤", limits["reversal"], gain, note=on)


@_test("C5", each=lambda evidence: evidence.scratch_tasks)
def _another_architecture_recovers_less(evidence: Evidence, task: str, limits: Limits) -> Parts:
    drop = evidence.gap(task, surrogate=evidence.scale.other_network)
    theirs = _difference(*(paper.recovery(task, "architecture", network) for network in ("RN34", "VGG16")))
    for sign, limit in ((">", limits["lower"]), ("<", limits["upper"])):
        yield bound(f"r(ResNet) − r(VGG) on {task}", sign, limit, drop, authors=theirs)


@_test("C6", each=lambda evidence: evidence.scale.scratch_networks if evidence.scale else ())
def _from_scratch_is_harder_to_steal(evidence: Evidence, task: str, limits: Limits) -> Parts:
    network = evidence.scale.scratch_networks[task]
    drop = evidence.gap(task, victim=network, pretrained=False)
    theirs = _difference(paper.recovery(task, "architecture", "RN34"), paper.scratch_recovery(task))
    quantity = f"r({task}, pre-trained) − r({task}, {network} from scratch)"
    yield bound(quantity, "≥", limits["drop"], drop, authors=theirs)


@_test("C7")
def _narrow_queries_fail(evidence: Evidence, task: str, limits: Limits) -> Parts:
    for narrow in evidence.tasks_like("retina"):
        values = evidence.series(task, pool=narrow, budget=evidence.scale.narrow_budget)
        whose, sign, limit = ("own", "≥", limits["own"]) if task == narrow else (narrow, "≤", limits["others"])
        yield bound(f"r({task}, {whose} images)", sign, limit, values, authors=paper.recovery(task, "query_diversity"))


@_test("C8", each=lambda evidence: evidence.tasks_like("signs", "objects"))
def _classes_are_recovered_unevenly(evidence: Evidence, task: str, limits: Limits) -> Parts:
    rows = evidence.seeds_of(task, experiment="classes").values()
    shortfall = [worst_class(row.result, limits["victim_accuracy"])[1] for row in rows]
    yield bound(f"mean − worst class's r on {task}", "≥", limits["drop"], shortfall)


def worst_class(result: Mapping, least: float) -> tuple[int, float]:
    """Return the class that is recovered worst on the first half, and how far it is below the mean on the second.

    Args:
        result: Of the experiment ``"classes"``.
        least: Classes whose victim accuracy is below it on either half are left out.
    """
    victim, surrogate = (np.array(result[f"{who}_accuracy"]) for who in ("victim", "surrogate"))
    recovered = np.where((victim >= least).all(0), surrogate / np.maximum(victim, least), np.nan)
    worst = int(np.nanargmin(recovered[0]))
    return worst, float(np.nanmean(recovered[1]) - recovered[1, worst])


@_test("C9")
def _a_classifier_detects(evidence: Evidence, task: str, limits: Limits) -> Parts:
    # The classes of things overlap with the pool's.
    values, overlapping = evidence.detection(task, BALANCED), evidence.tasks_like("things")
    if task in overlapping:
        yield bound(f"balanced accuracy({task})", "<", limits["things"], values)
        return
    yield bound(f"balanced accuracy({task})", "≥", limits["balanced_accuracy"], values)
    for other in overlapping:
        more = values - evidence.detection(other, BALANCED)
        yield bound(f"balanced accuracy({task}) − ({other})", ">", 0, more)


@_test("C10")
def _it_holds_on_an_unseen_pool(evidence: Evidence, task: str, limits: Limits) -> Parts:
    change = evidence.detection(task, "binary.second.balanced_accuracy") - evidence.detection(task, BALANCED)
    for sign, limit in (("≤", limits["difference"]), ("≥", -limits["difference"])):
        yield bound(f"balanced accuracy({task}) on the second pool − first", sign, limit, change)


@_test("C11", each=lambda evidence: ("odin", "mahalanobis"))
def _it_beats_others(evidence: Evidence, other: str, limits: Limits) -> Parts:
    ours, theirs = "binary.pool.tnr", f"{other}.pool.tnr"
    gains = {task: evidence.detection(task, ours) - evidence.detection(task, theirs) for task in evidence.tasks}
    means = sum(gains.values()) / len(gains) if gains else []
    yield bound(f"TNR − TNR({other})", ">", limits["mean"], means, note=" in the mean")
    for task, gain in gains.items():
        yield bound(f"TNR − TNR({other})", "≥", -limits["tie"], gain, note=f" on {task}")


@_test("C12")
def _shuffling_stops_the_attack(evidence: Evidence, task: str, limits: Limits) -> Parts:
    plain, stopped, share = evidence.series(task), evidence.series(task, defense="shuffle"), limits["share"]
    given = bound(f"undefended r({task})", "≥", limits["precondition"], plain)
    if stopped.empty:
        return
    if not given.holds:
        yield Skipped(str(given))
        return
    theirs = paper.recovery(task, "defended")
    yield bound(f"r({task}, defended) − {share} r({task})", "≤", 0, stopped - share * plain, authors=theirs)
    good = paper.claim("C9").bounds["balanced_accuracy"]
    if bound("balanced accuracy", "≥", good, evidence.detection(task, BALANCED)).holds:
        loss = evidence.honest_loss(task, "shuffle")
        yield bound(f"honest users' loss({task})", "≤", limits["honest_loss"], loss)


@_test("C13")
def _own_kind_evades(evidence: Evidence, task: str, limits: Limits) -> Parts:
    more = evidence.detection(task, "caught.shifted") - evidence.detection(task, "caught.benign")
    yield bound(f"caught({task}, shifted) − caught(benign)", "≤", limits["caught_more"], more)


@_test("C14")
def _own_kind_steals(evidence: Evidence, task: str, limits: Limits) -> Parts:
    most = evidence.scale.budget * limits["budget_share"]
    budget = max(queries for queries in evidence.scale.realistic_budgets if queries <= most)
    gain = -evidence.gap(task, pool=f"{task}/shifted", budget=budget)
    yield bound(f"r({task}, shifted, {budget:,} queries) − r({task})", "≥", 0, gain)


@_test("C15")
def _overlap_weakens_detection(evidence: Evidence, task: str, limits: Limits) -> Parts:
    cell, shares = {"experiment": "overlap", "pool": f"{task}/shifted", **NO_ATTACK}, evidence.scale.overlaps
    found = pd.DataFrame({share: evidence.series(task, "balanced_accuracy", overlap=share, **cell) for share in shares})
    slopes = [np.polyfit(shares, values, 1)[0] for values in found.dropna().to_numpy()]
    yield bound(f"slope of balanced accuracy({task}) over overlap", "<", limits["slope"], slopes)


@_test("B1")
def _adaptive_beats_random(evidence: Evidence, task: str, limits: Limits) -> Parts:
    budget = evidence.scale.middle_budget
    gain = evidence.series(task, attack="adaptive", reward="all", budget=budget) - evidence.series(task, budget=budget)
    quantity, note = f"r({task}, adaptive) − r({task}, random)", f" at {budget:,} queries"
    yield bound(quantity, ">", limits["difference"], gain, note=note)


@_test("B2")
def _sybils_defeat_stateful_detection(evidence: Evidence, task: str, limits: Limits) -> Parts:
    cell = {"experiment": "stateful", "surrogate": ""}
    count, caught = len(evidence.find(task, **cell)), len(evidence.series(task, "counting.pool_until", **cell))
    if caught < count:
        spared = f"{count - caught} of {count} seeds"
        yield Skipped(f"one client that sends {task} the whole budget goes unflagged on {spared}")
    else:
        flagged = evidence.series(task, "counting.sybil_flagged", **cell)
        yield bound(f"share of Sybil accounts flagged({task})", "≤", limits["flagged"], flagged)


@_test("B3")
def _the_mark_survives(evidence: Evidence, task: str, limits: Limits) -> Parts:
    values = evidence.series(task, "mark_agreement", defense=WATERMARK)
    yield bound(f"agreement on the marked queries({task})", "≥", limits["agreement"], values)


@_test("B4")
def _honest_users_lose_little(evidence: Evidence, task: str, limits: Limits) -> Parts:
    for policy in ("shuffle", "deny", "label"):
        loss = evidence.honest_loss(task, policy)
        yield bound(f"honest users' loss({task}, {policy})", "≤", limits["loss"], loss)


@_test("B5")
def _recovery_flatters(evidence: Evidence, task: str, limits: Limits) -> Parts:
    gap = evidence.series(task) - evidence.series(task, "agreement")
    yield bound(f"r({task}) − agreement", ">", limits["difference"], gap)


@_test("B6", each=lambda evidence: evidence.scratch_tasks, kind="compression")
@_test("B8", each=lambda evidence: evidence.scratch_tasks, kind="resampling")
def _the_processing_is_what_is_detected(evidence: Evidence, task: str, limits: Limits, *, kind: str) -> Parts:
    detector, how, share = f"{kind}-differs", PROCESSING[kind], limits["share"]
    shown = partial(shortcut, evidence, task)
    gain = shown("sides", detector, "balanced_accuracy") - shown("sides", f"{kind}-matched", "balanced_accuracy")
    yield bound(f"balanced accuracy({task}), {kind} differs − matched", ">", limits["difference"], gain)
    more = shown("caught", detector, how) - share * shown("caught", detector, "none")
    yield bound(f"caught({task}, {how}) − {share} caught(as they came)", "≤", 0, more)
    gain = shown("recovery", detector, how) - shown("recovery", detector, "none")
    yield bound(f"r({task}, {how}) − r(as they came)", ">", 0, gain)


@_test("B7", each=lambda evidence: evidence.scratch_tasks, kind="compression")
@_test("B9", each=lambda evidence: evidence.scratch_tasks, kind="resampling")
def _hardening_helps(evidence: Evidence, task: str, limits: Limits, *, kind: str) -> Parts:
    detector, hardened = f"{kind}-differs", f"{kind}-differs-hardened"
    how, share, shown = PROCESSING[kind], limits["share"], partial(shortcut, evidence, task)
    lost = shown("caught", hardened, "none") - shown("caught", hardened, how)
    yield bound(f"caught({task}, as they came) − caught({how})", "≤", limits["caught_less"], lost)
    cost = shown("accepted", detector, how) - shown("accepted", hardened, how)
    yield bound(f"honest images accepted({task}), not hardened − hardened", "≤", limits["loss"], cost)
    more = shown("recovery", hardened, how) - share * shown("recovery", "undefended", "none")
    yield bound(f"r({task}, {how}, hardened) − {share} r({task})", "≤", 0, more)


def shortcut(evidence: Evidence, task: str, *path: str) -> pd.Series:
    """Return, by seed, what lies at `path` in the results of the table `shortcut` of a task."""
    return evidence.series(task, ".".join(path), experiment="shortcut", budget=evidence.scale.middle_budget)


def _difference(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else round(first - second, 2)


def _distinct(values: Iterable) -> tuple:
    return tuple(sorted(set(values)))
