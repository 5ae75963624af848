"""The ledger: the paper's claims beside our results, with a verdict on each.

A claim holds or does not hold only if, for each bound of its test, the 95% interval over the seeds lies wholly on one
side of the bound. The tests stand in `paper.claims` and were written before any result.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from types import MappingProxyType

import numpy as np

from extractbook.reproduction import edition_1, paper
from extractbook.reproduction.cells import ADAPTIVE, WATERMARK, Cell, Row
from extractbook.reproduction.experiments.shortcut import PROCESSING
from extractbook.reproduction.grids import narrow_budget, shortcut_budget
from extractbook.reproduction.scales import profile
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
        return cls(
            commits=_distinct(record["commit"] for record in records),
            dates=(dates[0], dates[-1]),
            devices=_distinct(record["device"] for record in records),
            versions=_distinct(" ".join(pair) for record in records for pair in _libraries(record).items()),
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


Values = Mapping[int, float]
"""One value a seed."""


class Evidence:
    """The rows of one profile, looked up by what their cells are.

    Args:
        rows: Rows of any tables, of one profile.

    Attributes:
        rows: The rows.
        profile: Name of the profile; empty without rows.
        tasks: The tasks of the reproduction, in order of their names.

    Raises:
        InputError: The rows are of several profiles, or two of the same cell differ.
    """

    def __init__(self, rows: Iterable[Row]):
        self.rows = list(rows)
        profiles = _distinct(row.cell.profile for row in self.rows)
        if len(profiles) > 1:
            raise InputError(f"rows of the profiles {', '.join(profiles)}: a ledger is of one profile")
        self.profile = profiles[0] if profiles else ""
        self._kinds: dict[Cell, dict[int, Row]] = {}
        for row in self.rows:
            seeds = self._kinds.setdefault(replace(row.cell, seed=0), {})
            # Two tables may share a cell.
            if seeds.setdefault(row.cell.seed, row).result != row.result:
                raise InputError(
                    f"two rows for task {row.cell.task!r} and seed {row.cell.seed} of the same cell differ: give one"
                )
        self._plain = self._reproduction()
        self.tasks = tuple(sorted(self._plain))

    def _reproduction(self) -> dict[str, Cell]:
        """Return the reproduction's cell of each task: the plain attack with the whole budget."""
        chosen: dict[str, Cell] = {}
        for cell in self._kinds:
            pool = profile(cell.profile).pool or cell.pool
            plain = Cell(
                profile=cell.profile,
                task=cell.task,
                pool=pool,
                victim=cell.victim,
                surrogate=cell.victim,
                budget=cell.budget,
                seed=0,
            )
            if cell == plain and cell.budget > chosen.get(cell.task, replace(cell, budget=0)).budget:
                chosen[cell.task] = cell
        return chosen

    def seeds_of(self, task: str, **changes) -> Mapping[int, Row]:
        """Return the rows, by seed, of the reproduction's cell of a task with `changes` to its fields; perhaps none."""
        if task not in self._plain:
            return {}
        found = self._kinds.get(replace(self._plain[task], **changes), {})
        return {seed: found[seed] for seed in sorted(found)}

    def values(self, task: str, *path: str, **changes) -> Values:
        """Return one number a seed: what lies at `path` (``"recovery"`` if none) in the results of `seeds_of`.

        A row that has nothing there, as no second pool was at hand, is left out.
        """
        found = {seed: _at(row.result, path or ("recovery",)) for seed, row in self.seeds_of(task, **changes).items()}
        return {seed: value for seed, value in found.items() if value is not None}

    def measured(self, task: str, experiment: str, *path: str, **changes) -> Values:
        """Return one number a seed from the rows of an experiment that attacks nothing."""
        return self.values(task, *path, experiment=experiment, **({"surrogate": "", "budget": 0} | changes))

    @property
    def reproduction(self) -> list[Row]:
        """The rows of the reproduction table."""
        return [row for task in self.tasks for row in self.seeds_of(task).values()]


def verdicts(rows: Iterable[Row]) -> tuple[Entry, ...]:
    """Return an entry for each claim of the paper and each of ours, in their order.

    Args:
        rows: Rows of all tables of one profile.

    Raises:
        InputError: The rows are of several profiles, or two of the same cell differ.
    """
    evidence = Evidence(rows)
    return tuple(_entry(claim, evidence) for claim in (*paper.claims(), *paper.our_claims()))


def reproduction(rows: Iterable[Row]) -> list[Row]:
    """Return the rows of the reproduction table: the plain attack with the whole budget.

    Raises:
        InputError: The rows are of several profiles, or two of the same cell differ.
    """
    return Evidence(rows).reproduction


def bound(
    statement: str,
    values: Iterable[float],
    *,
    least: float | None = None,
    most: float | None = None,
    strict: bool = False,
    authors: float | None = None,
) -> Bound:
    """Return a bound from below or from above, judged by the 95% t interval of its values.

    Args:
        statement: The bound in words.
        values: One value a seed.
        least: What the quantity must reach; or
        most: what it must not exceed.
        strict: Whether the bound itself is the wrong side.
        authors: The authors' value.
    """
    values = tuple(values)
    if len(values) < FEWEST_SEEDS:
        return Bound(statement, authors, values, None, None)
    interval = low, high = t_interval(values)
    if least is None:
        low, high, least = -high, -low, -most
    right, wrong = (low > least, high <= least) if strict else (low >= least, high < least)
    return Bound(statement, authors, values, interval, right if right or wrong else None, low - least)


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
    kinds = {
        Verdict.NOT_RUN: [bound for bound in bounds if bound.interval is None],
        Verdict.DOES_NOT_HOLD: [bound for bound in bounds if bound.holds is False],
        Verdict.UNDECIDED: [bound for bound in bounds if bound.holds is None],
        Verdict.HOLDS: [bound for bound in bounds if bound.holds],
    }
    if kinds[Verdict.NOT_RUN]:
        verdict = Verdict.NOT_RUN
    elif len(kinds[Verdict.HOLDS]) >= needed:
        verdict = Verdict.HOLDS
    elif len(bounds) - len(kinds[Verdict.DOES_NOT_HOLD]) < needed:
        verdict = Verdict.DOES_NOT_HOLD
    else:
        verdict = Verdict.UNDECIDED
    deciding = kinds[verdict]
    told = list(map(str, deciding))
    if verdict is Verdict.HOLDS and len(deciding) > FEW:
        closest = min(deciding, key=lambda bound: bound.margin)
        told = [f"{len(deciding)} of {len(bounds)} bounds hold, and the closest is {closest}"]
    return verdict, "; ".join([*told, *(f"not testable: {reason}" for reason in skipped)])


def _entry(claim: paper.Claim, evidence: Evidence) -> Entry:
    parts = list(TESTS[claim.id](claim, evidence))
    verdict, reason = judge(parts, least=claim.bounds.get("tasks"))
    bounds = tuple(part for part in parts if isinstance(part, Bound))
    if verdict is Verdict.NOT_RUN:
        return Entry(claim, verdict, reason, bounds)
    return Entry(claim, verdict, reason, bounds, evidence.tasks, Provenance.of(evidence.reproduction))


# -- the tests, one a claim ---------------------------------------------------

MANY_ALIKE = ("birds", "things")
"""Tasks whose classes are many and alike."""

OVERLAPPING = "things"
"""The task whose classes overlap with the pool's."""

Parts = Iterator[Bound | Skipped]


def _each_task_is_recovered(claim: paper.Claim, evidence: Evidence) -> Parts:
    least = claim.bounds["recovery"]
    for task in evidence.tasks:
        theirs = _authors("reproduction", task)
        yield bound(f"r({task}) ≥ {least}", evidence.values(task).values(), least=least, authors=theirs)


def _retina_is_recovered_worst(claim: paper.Claim, evidence: Evidence) -> Parts:
    worst = next((task for task in evidence.tasks if paper.victim(task) == paper.VICTIMS["retina"]), None)
    for task in evidence.tasks if worst else ():
        if task != worst:
            yield bound(
                f"r({task}) − r({worst}) > 0",
                _less(evidence.values(task), evidence.values(worst)),
                least=claim.bounds["difference"],
                strict=True,
                authors=_difference(_authors("reproduction", task), _authors("reproduction", worst)),
            )


def _label_costs_most_where_classes_are_alike(claim: paper.Claim, evidence: Evidence) -> Parts:
    drops = {
        task: dict(_paired(evidence.values(task), evidence.values(task, granularity="label")))
        for task in evidence.tasks
    }
    theirs = {
        task: _difference(_authors("reproduction", task), _authors("granularity", task)) for task in evidence.tasks
    }
    alike = [task for task in evidence.tasks if _twin(task) in MANY_ALIKE]
    for task in alike:
        least = claim.bounds["drop"]
        yield bound(f"drop({task}) > 0", drops[task].values(), least=least, strict=True, authors=theirs[task])
        for other in evidence.tasks:
            if other not in alike:
                yield bound(
                    f"drop({task}) − drop({other}) > 0",
                    _less(drops[task], drops[other]),
                    least=claim.bounds["difference"],
                    strict=True,
                    authors=_difference(theirs[task], theirs[other]),
                )


def _granularity_in_between_costs_in_between(claim: paper.Claim, evidence: Evidence) -> Parts:
    least = claim.bounds["precondition"]
    for task in evidence.tasks:
        given = bound(
            f"r(full) − r(label) > {least} on {task}",
            _less(evidence.values(task), evidence.values(task, granularity="label")),
            least=least,
            strict=True,
        )
        if given.interval is None:
            continue
        if not given.holds:
            yield Skipped(str(given))
            continue
        for kind in ("top-", "rounded-"):
            shown = {row.cell.granularity for row in evidence.rows if row.cell.task == task}
            between = sorted((name for name in shown if name.startswith(kind)), key=_value, reverse=True)
            steps = ["full", *between, "label"]
            for more, less in zip(steps, steps[1:], strict=False):
                yield bound(
                    f"r({less}) − r({more}) ≤ {claim.bounds['reversal']} on {task}",
                    _less(evidence.values(task, granularity=less), evidence.values(task, granularity=more)),
                    most=claim.bounds["reversal"],
                )


def _another_architecture_recovers_less(claim: paper.Claim, evidence: Evidence) -> Parts:
    for task in evidence.tasks:
        settings = profile(evidence.profile)
        if task not in settings.scratch_networks:
            continue
        other = _less(evidence.values(task), evidence.values(task, surrogate=settings.other_network))
        theirs = _difference(_authors("architecture", task, "RN34"), _authors("architecture", task, "VGG16"))
        named = f"r(ResNet) − r(VGG) on {task}"
        yield bound(f"{named} > 0", other, least=claim.bounds["lower"], strict=True, authors=theirs)
        yield bound(f"{named} < 0.15", other, most=claim.bounds["upper"], strict=True, authors=theirs)


def _from_scratch_is_harder_to_steal(claim: paper.Claim, evidence: Evidence) -> Parts:
    least = claim.bounds["drop"]
    victims = {"signs": "GTSRB-5L", "objects": "CIFAR10-9L"}
    rows = paper.tables()["architecture"]["rows"]
    for task, network in profile(evidence.profile).scratch_networks.items() if evidence.profile else ():
        lower = evidence.values(task, victim=network, pretrained=False)
        theirs = _difference(
            _authors("architecture", task, "RN34"), rows.get(victims.get(task), {}).get("RN34_recovery")
        )
        yield bound(
            f"r({task}, pre-trained) − r({task}, {network} from scratch) ≥ {least}",
            _less(evidence.values(task), lower),
            least=least,
            authors=theirs,
        )


def _narrow_queries_fail(claim: paper.Claim, evidence: Evidence) -> Parts:
    narrow = next((task for task in evidence.tasks if _twin(task) == "retina"), None)
    for task in evidence.tasks if narrow else ():
        asked = narrow_budget(narrow, profile(evidence.profile))
        values = evidence.values(task, pool=narrow, budget=asked).values()
        theirs = _authors("query_diversity", task)
        if task == narrow:
            least = claim.bounds["own"]
            yield bound(f"r({task}, own images) ≥ {least}", values, least=least, authors=theirs)
        else:
            most = claim.bounds["others"]
            yield bound(f"r({task}, {narrow} images) ≤ {most}", values, most=most, authors=theirs)


def _classes_are_recovered_unevenly(claim: paper.Claim, evidence: Evidence) -> Parts:
    for task in evidence.tasks:
        rows = evidence.seeds_of(task, experiment="classes")
        if _twin(task) not in ("signs", "objects"):
            continue
        shortfall = {seed: worst_class(row.result, claim.bounds["victim_accuracy"])[1] for seed, row in rows.items()}
        least = claim.bounds["drop"]
        yield bound(f"mean − worst class's r on {task} ≥ {least}", shortfall.values(), least=least)


def worst_class(result: Mapping, least: float) -> tuple[int, float]:
    """Return the class that is recovered worst on the first half, and how far it is below the mean on the second.

    Args:
        result: Of the experiment ``"classes"``.
        least: Classes whose victim accuracy is below it on either half are left out.
    """
    victim, surrogate = (np.array(result[f"{who}_accuracy"]) for who in ("victim", "surrogate"))
    counted = (victim >= least).all(0)
    recovered = np.divide(surrogate, victim, out=np.full_like(victim, np.nan), where=counted)
    worst = int(np.nanargmin(recovered[0]))
    return worst, float(np.nanmean(recovered[1]) - recovered[1, worst])


def _a_classifier_detects(claim: paper.Claim, evidence: Evidence) -> Parts:
    values = {
        task: evidence.measured(task, "detection", "binary", "pool", "balanced_accuracy") for task in evidence.tasks
    }
    for task in evidence.tasks:
        if _twin(task) == OVERLAPPING:
            most = claim.bounds["things"]
            yield bound(f"balanced accuracy({task}) < {most}", values[task].values(), most=most, strict=True)
            continue
        least = claim.bounds["balanced_accuracy"]
        yield bound(f"balanced accuracy({task}) ≥ {least}", values[task].values(), least=least)
        for other in evidence.tasks:
            if _twin(other) == OVERLAPPING:
                more = _less(values[task], values[other])
                yield bound(f"balanced accuracy({task}) − ({other}) > 0", more, least=0, strict=True)


def _it_holds_on_an_unseen_pool(claim: paper.Claim, evidence: Evidence) -> Parts:
    most = claim.bounds["difference"]
    for task in evidence.tasks:
        first, second = (
            evidence.measured(task, "detection", "binary", pool, "balanced_accuracy") for pool in ("pool", "second")
        )
        change = _less(second, first)
        yield bound(f"balanced accuracy({task}) on the second pool − first ≤ {most}", change, most=most)
        yield bound(f"balanced accuracy({task}) on the second pool − first ≥ −{most}", change, least=-most)


def _it_beats_others(claim: paper.Claim, evidence: Evidence) -> Parts:
    caught = {
        name: {task: evidence.measured(task, "detection", name, "pool", "tnr") for task in evidence.tasks}
        for name in ("binary", "odin", "mahalanobis")
    }
    for other in ("odin", "mahalanobis"):
        gains = {task: dict(_paired(caught["binary"][task], caught[other][task])) for task in evidence.tasks}
        seeds = sorted(set.intersection(*(set(gain) for gain in gains.values()))) if gains else []
        means = [sum(gain[seed] for gain in gains.values()) / len(gains) for seed in seeds]
        yield bound(f"TNR − TNR({other}) > 0 in the mean", means, least=claim.bounds["mean"], strict=True)
        for task, gain in gains.items():
            tie = claim.bounds["tie"]
            yield bound(f"TNR − TNR({other}) ≥ −{tie} on {task}", gain.values(), least=-tie)


def _shuffling_stops_the_attack(claim: paper.Claim, evidence: Evidence) -> Parts:
    needed, share, loss = (claim.bounds[name] for name in ("precondition", "share", "honest_loss"))
    for task in evidence.tasks:
        plain, stopped = evidence.values(task), evidence.values(task, defence="shuffle")
        if not stopped:
            continue
        given = bound(f"undefended r({task}) ≥ {needed}", plain.values(), least=needed)
        if not given.holds:
            yield Skipped(str(given))
            continue
        yield bound(
            f"r({task}, defended) − {share} r({task}) ≤ 0",
            _less(stopped, {seed: share * value for seed, value in plain.items()}),
            most=0,
            authors=_authors("defended", task),
        )
        detected = evidence.measured(task, "detection", "binary", "pool", "balanced_accuracy")
        if bound("", detected.values(), least=paper.claim("C9").bounds["balanced_accuracy"]).holds:
            yield bound(
                f"honest users' loss({task}) ≤ {loss}", _honest_loss(evidence, task, "shuffle").values(), most=loss
            )


def _own_kind_evades(claim: paper.Claim, evidence: Evidence) -> Parts:
    most = claim.bounds["caught_more"]
    for task in evidence.tasks:
        shifted, benign = (evidence.measured(task, "detection", "caught", who) for who in ("shifted", "benign"))
        yield bound(f"caught({task}, shifted) − caught(benign) ≤ {most}", _less(shifted, benign), most=most)


def _own_kind_steals(claim: paper.Claim, evidence: Evidence) -> Parts:
    for task in evidence.tasks:
        settings = profile(evidence.profile)
        most = settings.budget * claim.bounds["budget_share"]
        budget = max(queries for queries in settings.realistic_budgets if queries <= most)
        stolen = evidence.values(task, pool=f"{task}/shifted", budget=budget)
        yield bound(
            f"r({task}, shifted, {budget:,} queries) − r({task}) ≥ 0", _less(stolen, evidence.values(task)), least=0
        )


def _overlap_weakens_detection(claim: paper.Claim, evidence: Evidence) -> Parts:
    shares = profile(evidence.profile).overlaps if evidence.profile else ()
    for task in evidence.tasks:
        pool = f"{task}/shifted"
        found = [evidence.measured(task, "overlap", "balanced_accuracy", pool=pool, overlap=share) for share in shares]
        seeds = sorted(set.intersection(*(set(values) for values in found))) if found else []
        slopes = [np.polyfit(shares, [values[seed] for values in found], 1)[0] for seed in seeds]
        yield bound(f"slope of balanced accuracy({task}) over overlap < 0", slopes, most=0, strict=True)


def _adaptive_beats_random(claim: paper.Claim, evidence: Evidence) -> Parts:
    budgets = profile(evidence.profile).adaptive_budgets if evidence.profile else (0,)
    budget = budgets[len(budgets) // 2]
    for task in evidence.tasks:
        chosen = evidence.values(task, attack=f"{ADAPTIVE}all", budget=budget)
        gain = _less(chosen, evidence.values(task, budget=budget))
        yield bound(f"r({task}, adaptive) − r({task}, random) > 0 at {budget:,} queries", gain, least=0, strict=True)


def _sybils_defeat_stateful_detection(claim: paper.Claim, evidence: Evidence) -> Parts:
    most = claim.bounds["flagged"]
    for task in evidence.tasks:
        rows = evidence.seeds_of(task, experiment="stateful", surrogate="")
        found = [row.result["counting"] for row in rows.values()]
        spared = sum(result["pool_until"] is None for result in found)
        if spared:
            yield Skipped(
                f"one client that sends {task} the whole budget goes unflagged on {spared} of {len(found)} seeds"
            )
        else:
            flagged = [result["sybil_flagged"] for result in found]
            yield bound(f"share of Sybil accounts flagged({task}) ≤ {most}", flagged, most=most)


def _the_mark_survives(claim: paper.Claim, evidence: Evidence) -> Parts:
    least = claim.bounds["agreement"]
    for task in evidence.tasks:
        values = evidence.values(task, "mark_agreement", defence=WATERMARK).values()
        yield bound(f"agreement on the marked queries({task}) ≥ {least}", values, least=least)


def _honest_users_lose_little(claim: paper.Claim, evidence: Evidence) -> Parts:
    most = claim.bounds["loss"]
    for task in evidence.tasks:
        for policy in ("shuffle", "deny", "label"):
            loss = _honest_loss(evidence, task, policy).values()
            yield bound(f"honest users' loss({task}, {policy}) ≤ {most}", loss, most=most)


def _recovery_flatters(claim: paper.Claim, evidence: Evidence) -> Parts:
    for task in evidence.tasks:
        gap = _less(evidence.values(task), evidence.values(task, "agreement"))
        yield bound(f"r({task}) − agreement > 0", gap, least=claim.bounds["difference"], strict=True)


def _the_processing_is_what_is_detected(kind: str, claim: paper.Claim, evidence: Evidence) -> Parts:
    detector, how = f"{kind}-differs", PROCESSING[kind]
    for task in _with_shortcut(evidence):
        shown = partial(shortcut, evidence, task)
        gain = _less(*(shown("sides", f"{kind}-{sides}", "balanced_accuracy") for sides in ("differs", "matched")))
        named = f"balanced accuracy({task}), {kind} differs − matched > 0"
        yield bound(named, gain, least=claim.bounds["difference"], strict=True)
        share = claim.bounds["share"]
        came, imitated = (shown("caught", detector, sent) for sent in ("none", how))
        halved = _less(imitated, {seed: share * value for seed, value in came.items()})
        yield bound(f"caught({task}, {how}) − {share} caught(as they came) ≤ 0", halved, most=0)
        came, imitated = (shown("recovery", detector, sent) for sent in ("none", how))
        yield bound(f"r({task}, {how}) − r(as they came) > 0", _less(imitated, came), least=0, strict=True)


def _hardening_helps(kind: str, claim: paper.Claim, evidence: Evidence) -> Parts:
    detector, how = f"{kind}-differs", PROCESSING[kind]
    hardened = f"{detector}-hardened"
    for task in _with_shortcut(evidence):
        shown = partial(shortcut, evidence, task)
        most = claim.bounds["caught_less"]
        lost = _less(*(shown("caught", hardened, sent) for sent in ("none", how)))
        yield bound(f"caught({task}, as they came) − caught({how}) ≤ {most}", lost, most=most)
        most = claim.bounds["loss"]
        cost = _less(*(shown("accepted", name, how) for name in (detector, hardened)))
        yield bound(f"honest images accepted({task}), not hardened − hardened ≤ {most}", cost, most=most)
        share = claim.bounds["share"]
        plain, left = (shown("recovery", *path) for path in (("undefended", "none"), (hardened, how)))
        stopped = _less(left, {seed: share * value for seed, value in plain.items()})
        yield bound(f"r({task}, {how}, hardened) − {share} r({task}) ≤ 0", stopped, most=0)


def _with_shortcut(evidence: Evidence) -> list[str]:
    """Return the tasks of the table `shortcut`."""
    chosen = profile(evidence.profile).scratch_networks if evidence.profile else ()
    return [task for task in evidence.tasks if task in chosen]


def shortcut(evidence: Evidence, task: str, *path: str) -> Values:
    """Return one number a seed: what lies at `path` in the results of the table `shortcut` of a task."""
    budget = shortcut_budget(profile(evidence.profile))
    return evidence.values(task, *path, experiment="shortcut", budget=budget)


TESTS: Mapping[str, Callable[[paper.Claim, Evidence], Parts]] = MappingProxyType(
    {
        "C1": _each_task_is_recovered,
        "C2": _retina_is_recovered_worst,
        "C3": _label_costs_most_where_classes_are_alike,
        "C4": _granularity_in_between_costs_in_between,
        "C5": _another_architecture_recovers_less,
        "C6": _from_scratch_is_harder_to_steal,
        "C7": _narrow_queries_fail,
        "C8": _classes_are_recovered_unevenly,
        "C9": _a_classifier_detects,
        "C10": _it_holds_on_an_unseen_pool,
        "C11": _it_beats_others,
        "C12": _shuffling_stops_the_attack,
        "C13": _own_kind_evades,
        "C14": _own_kind_steals,
        "C15": _overlap_weakens_detection,
        "B1": _adaptive_beats_random,
        "B2": _sybils_defeat_stateful_detection,
        "B3": _the_mark_survives,
        "B4": _honest_users_lose_little,
        "B5": _recovery_flatters,
        "B6": partial(_the_processing_is_what_is_detected, "compression"),
        "B7": partial(_hardening_helps, "compression"),
        "B8": partial(_the_processing_is_what_is_detected, "resampling"),
        "B9": partial(_hardening_helps, "resampling"),
    }
)
"""How each claim gets its bounds; a bound without rows has no values, and the claim is then not run."""


def _honest_loss(evidence: Evidence, task: str, policy: str) -> Values:
    served = evidence.values(task, "honest_accuracy", defence=policy)
    return dict(_paired(evidence.values(task, "victim_accuracy"), served))


def _paired(first: Values, second: Values) -> list[tuple[int, float]]:
    """Return the difference of two values for each seed that both have."""
    return [(seed, first[seed] - second[seed]) for seed in first if seed in second]


def _less(first: Values, second: Values) -> list[float]:
    return [difference for _, difference in _paired(first, second)]


def _difference(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else round(first - second, 2)


def _authors(table: str, task: str, surrogate: str = "") -> float | None:
    """Return the authors' recovery of a task in one of their tables, or None."""
    row = paper.tables()[table]["rows"].get(paper.victim(task), {})
    return row.get(f"{surrogate}_recovery" if surrogate else "recovery")


def _twin(task: str) -> str | None:
    """Return the drawn task that stands for the same of the authors' victims."""
    return next((drawn for drawn, victim in paper.VICTIMS.items() if victim == paper.victim(task)), None)


def _value(granularity: str) -> float:
    return float(granularity.partition("-")[2])


def _at(result: Mapping, path: Iterable[str]) -> float | None:
    for step in path:
        if step not in result:
            return None
        result = result[step]
    return result


def _libraries(record: Mapping) -> Mapping[str, str]:
    """Return the versions of the libraries, which rows of the first edition have as their only ``"versions"``."""
    return record["libraries"] if "libraries" in record else record["versions"]


def _distinct(values: Iterable) -> tuple:
    return tuple(sorted(set(values)))
