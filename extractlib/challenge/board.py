"""The scoreboard: a row for each team and for each of the host's own models, as a page, CSV and JSON."""

import csv
import io
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from extractlib.api.meter import Usage
from extractlib.challenge.scoring import Hidden, Score
from extractlib.challenge.submissions import SCORED, Submission

MEASURES = ("score", "recovery", "agreement", "errors_repeated")


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A line of the scoreboard.

    Attributes:
        rank: From 1 for a team with a score; None for one without, and for the host's models.
        name: The team or the model.
        kind: ``"team"`` or ``"host"``.
        public: Score on the public part of the hidden images.
        final: Score on the other part, after the deadline; None before it.
        queries: How many a team had been charged for when it handed in the copy that counts, or else so far.
        submissions: How many of its copies were scored.
        received: When the copy that counts was received, in UTC.
        sha256: Digest of that copy.
    """

    rank: int | None = None
    name: str
    kind: str
    public: Score | None = None
    final: Score | None = None
    queries: int | None = None
    submissions: int | None = None
    received: str | None = None
    sha256: str | None = None

    def flat(self) -> dict[str, object]:
        """Return the row with a column for each measure, ready for CSV and JSON."""
        said = asdict(self)
        parts = {part: said.pop(part) or dict.fromkeys(MEASURES) for part in ("public", "final")}
        return said | {f"{part}_{measure}": parts[part][measure] for part in parts for measure in MEASURES}


def rows(
    submissions: Sequence[Submission], usage: Mapping[str, Usage], hidden: Hidden, *, over: bool
) -> list[Standing]:
    """Return the scoreboard, the best first.

    For each team, the copy with the best public score counts, the first one if several are equal. The rows are sorted
    by the final score of these copies when the challenge is over, and by the public one before; of equal scores, the
    copy that came first is ahead. A copy handed in after the team was charged more than its budget does not count.

    Args:
        submissions: All copies, the oldest first.
        usage: What each team has been charged for.
        hidden: What the copies were scored on.
        over: Whether the deadline has passed.
    """
    found = [_team_row(team, used, submissions, over) for team, used in usage.items()]
    found += [_host_row(name, hidden, over) for name in hidden.shown_models()]
    found.sort(key=_order)
    ranks = itertools.count(1)
    return [replace(row, rank=next(ranks)) if row.kind == "team" and row.public else row for row in found]


def margin(images: int) -> float:
    """Return the margin within which two scores on so many images are alike: at most two standard deviations."""
    return 1 / math.sqrt(images)


def to_csv(board: Sequence[Standing]) -> str:
    """Return the scoreboard as CSV."""
    file = io.StringIO()
    lines = [row.flat() for row in board]
    writer = csv.DictWriter(file, list(Standing(name="", kind="").flat()), lineterminator="\n")
    writer.writeheader()
    # A spreadsheet takes a cell that begins with one of these as a formula, and a team chooses its own name.
    writer.writerows(
        {**line, "name": f"'{line['name']}" if str(line["name"])[0] in "=+-@" else line["name"]} for line in lines
    )
    return file.getvalue()


def to_page(board: Sequence[Standing], **said: object) -> str:
    """Return the scoreboard as a self-contained page; `said` is what else the template shows."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    template = Path(__file__).with_name("scoreboard.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(rows=board, **said)


def _team_row(team: str, used: Usage, submissions: Sequence[Submission], over: bool) -> Standing:
    own = [one for one in submissions if one.team == team and one.state == SCORED]
    counted = [one for one in own if one.public and (used.budget is None or one.queries <= used.budget)]
    row = Standing(name=team, kind="team", queries=used.queries, submissions=len(own))
    if not counted:
        return row
    best = max(counted, key=lambda one: one.public.score if one.public else 0.0)
    final = best.final if over else None
    return replace(
        row, public=best.public, final=final, queries=best.queries, received=best.received, sha256=best.sha256
    )


def _host_row(name: str, hidden: Hidden, over: bool) -> Standing:
    public, final = hidden.scores(hidden.baselines[name])
    return Standing(name=name, kind="host", public=public, final=final if over else None)


def _order(row: Standing) -> tuple[float, str, int, str]:
    counts = row.final or row.public
    # If scores are equal, the first copy is better: a copy that is passed on comes later.
    return (-counts.score if counts else 1.0, row.received or "", row.queries or 0, row.name)
