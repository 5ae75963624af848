"""What a claim's frozen test does not say about its verdict, computed from the rows that it rests on.

Tests are fixed before their rows, so what the rows show about a test can only be said next to it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pandas as pd

from extractbook.reproduction import judging
from extractbook.reproduction.judging import Bound, Entry, Verdict
from extractbook.reproduction.ledger import Ledger

JUDGED = (Verdict.HOLDS, Verdict.DOES_NOT_HOLD, Verdict.UNDECIDED)
"""The verdicts of a task that was tested."""

SMALL = 0.005
"""Difference between two rates below which claim C11 treats them as equal."""


def remarks(ledger: Ledger, claim: str) -> list[str]:
    """Return what a reader should know next to a claim's verdict, as sentences; none before it is judged.

    Args:
        ledger: Verdicts, including the claim's, and the rows that they rest on.
        claim: The claim's id.
    """
    entries = [entry for entry in ledger.of(claim) if entry.verdict in (*JUDGED, Verdict.NOT_TESTABLE)]
    if not any(entry.verdict in JUDGED for entry in entries):
        return []
    said = [*_in_the_mean_only(entries), *_uncorrected(entries)]
    return [*said, *(OF[claim](entries, ledger.frame) if claim in OF else ())]


def _in_the_mean_only(entries: Sequence[Entry]) -> list[str]:
    said = []
    for entry in entries:
        for one in entry.preconditions if entry.verdict in JUDGED else ():
            count = sum(not judging.fulfilled(at) for at in _by_seed(one))
            if count and judging.fulfilled(one):
                said.append(
                    f"On {entry.task}, a precondition is met in the mean but not at {count} of {len(one.values)} seeds:"
                    f" {one.statement}."
                )
    return said


def _by_seed(bound: Bound) -> list[Bound]:
    """Return a bound once per seed, with the seed's own value as its mean."""
    return [replace(bound, mean=value) for value in bound.values.values()]


def _uncorrected(entries: Sequence[Entry]) -> list[str]:
    said = []
    for entry in entries:
        wrong = sum(bound.holds is False for bound in entry.bounds)
        if wrong and entry.verdict is Verdict.UNDECIDED:
            said.append(
                f"Intervals on {entry.task} that lie entirely on the wrong side but do not count as violations after "
                f"the correction for the number of bounds: {wrong} of {len(entry.bounds)}."
            )
    return said


def _too_much(entries: Sequence[Entry], _: pd.DataFrame) -> list[str]:
    """C5 bounds a loss on both sides, and its verdict does not say which one fails."""
    tasks = [e.task for e in entries if any(b.holds is False and b.stated.sign in ("<", "≤") for b in e.bounds)]
    return [f"On {' and '.join(tasks)}, the loss is larger than the claim allows."] if tasks else []


def _second_pool(entries: Sequence[Entry], frame: pd.DataFrame) -> list[str]:
    """C11 compares detectors on the pool that the binary one was trained with."""
    ours, theirs = (f"{name}.second.tnr_at_95" for name in ("binary", "mahalanobis"))
    rows = frame.reindex(columns=["task", ours, theirs]).dropna()
    if rows.empty:
        return []
    by_task = (rows[ours] - rows[theirs]).groupby(rows["task"], sort=False).mean()
    far = [f"{_signed(value)} on {task}" for task, value in by_task.items() if abs(value) > SMALL]
    return [
        "The test is on the pool that the binary detector was trained with. On the second pool, its TNR at 95% TPR "
        f"minus that of the Mahalanobis detector is {_signed(by_task.mean())} in the mean over the tasks"
        + (f": {', '.join(far)}, and at most {SMALL:g} in either direction elsewhere." if far else ".")
    ]


def _nothing_to_defeat(entries: Sequence[Entry], frame: pd.DataFrame) -> list[str]:
    """B2's precondition is on exploring seeds."""
    times = frame.reindex(columns=["task", "counting.flag_times"]).dropna()
    said = []
    for entry in entries:
        flags = times.loc[times["task"] == entry.task, "counting.flag_times"]
        most = sum(2 * sum(time is not None for time in seed) > len(seed) for seed in flags)
        if entry.verdict in JUDGED and most < len(flags):
            said.append(f"{most} of {len(flags)} seeds ({entry.task})")
    rest = "at the others Sybil accounts have little to defeat"
    return [f"The count flags more than half of the single accounts at only {', '.join(said)}; {rest}."] if said else []


def _cost_where_untested(entries: Sequence[Entry], frame: pd.DataFrame) -> list[str]:
    """B4 is tested only where the detector works, and a detector that does not work costs the most."""
    said = []
    for entry in entries:
        rows = frame[(frame["task"] == entry.task) & (frame["experiment"] == "extraction")]
        shuffled, denied = (rows[rows["defense"] == name] for name in ("shuffle", "deny"))
        shuffled = shuffled[~shuffled["pool"].astype(str).str.endswith("/shifted")]
        if entry.verdict is Verdict.NOT_TESTABLE and len(shuffled) and len(denied):
            lost = 100 * (shuffled["victim_accuracy"] - shuffled["honest_accuracy"]).mean()
            said.append(
                f"On {entry.task}, where the claim is not testable, the shuffle costs honest users {lost:.1f} points"
                f" of accuracy, and denial refuses {denied['honest_refused'].mean():.1%} of their queries."
            )
    return said


def _no_strength(entries: Sequence[Entry], frame: pd.DataFrame) -> list[str]:
    """B13 gives each defense shuffling's price, and the mean L1 change of answers is part of it."""
    said = []
    for defense, name in {"reverse-sigmoid": "Reverse sigmoid", "misinformation": "Misinformation"}.items():
        rows = frame[(frame["defense"] == defense) & frame["task"].isin([e.task for e in entries])]
        none = int((rows["strength"] == 0).sum()) if "strength" in rows else 0
        if none:
            said.append(
                f"{name} has a strength of 0, which is no defense at all, in {none} of {len(rows)} rows: every "
                "other strength that was tried cost customers more than shuffling does, in accuracy or in the mean L1 "
                "change of their answers."
            )
    return said


OF: Mapping[str, Callable[[Sequence[Entry], pd.DataFrame], list[str]]] = MappingProxyType(
    {
        "C5": _too_much,
        "C11": _second_pool,
        "B2": _nothing_to_defeat,
        "B4": _cost_where_untested,
        "B13": _no_strength,
    }
)
"""Remarks on single claims, in addition to those on all."""


def _signed(value: float) -> str:
    return "0.000" if np.isclose(value, 0, atol=5e-4) else f"{value:+.3f}".replace("-", "−")
