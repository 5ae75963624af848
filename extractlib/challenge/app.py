"""The application of a challenge: the victim's API, the submission of copies, and the scoreboard."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.responses import HTMLResponse, Response

from extractlib.api.batching import ServedAPI
from extractlib.api.keys import Keys
from extractlib.api.server import Problem, answered, body_of, make_app, who_asks
from extractlib.challenge import board
from extractlib.challenge.host import HIDDEN, NAME, ChallengeFile, ChallengeSettings
from extractlib.challenge.sandbox import NoSandbox, Sandbox
from extractlib.challenge.scoring import Hidden
from extractlib.challenge.submissions import WAITING, Judge, Quota, Submission, Submissions, TooMany
from extractlib.errors import shown
from extractlib.models.networks import NETWORKS
from extractlib.serve import apis_of

LOG = logging.getLogger("extractlib.challenge")

UPLOADS = 1
"""Copies of a team that are held in memory at a time; its further ones wait, and other teams do not."""

STARTER = Path(__file__).with_name("starter.ipynb")

ADDRESS = "https://challenge.example.org"
"""The address in the starter notebook, which is replaced by the server's."""

UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
"""What the API page says about the body of a copy."""

HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:"}


def challenge_app(
    folder: Path, settings: ChallengeFile, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> FastAPI:
    """Return the application of the challenge in a folder.

    Args:
        folder: The folder that `host.make` wrote.
        settings: Its rules (`host.read`).
        clock: Returns the time.

    Raises:
        InputError: The folder holds no challenge, or an incomplete one.
    """
    keys = Keys(settings.database)
    apis, rules, hidden = apis_of(settings, keys), settings.challenge, Hidden.load(folder / HIDDEN)
    api = apis[NAME]
    quota = Quota(a_day=rules.submissions, queries=rules.queries_a_copy)
    store = Submissions(settings.database, folder / "submissions", quota=quota, clock=clock)
    judge = Judge(store, hidden, api.classes, _sandbox(rules))
    app = make_app(apis, keys, settings.limits, at_end=[judge.close])
    app.include_router(Challenge(settings, api, keys, hidden, store, judge, clock).router())
    return app


def _sandbox(rules: ChallengeSettings) -> Sandbox | None:
    """Return the sandbox for models in ONNX, or log what is missing for one and return None."""
    sandbox = Sandbox(seconds=rules.seconds, megabytes=rules.memory)
    try:
        sandbox.check()
    except NoSandbox as error:
        LOG.warning("models in ONNX are refused: %s", error)
        return None
    return sandbox


@dataclass(frozen=True, eq=False)
class Challenge:
    """What a challenge serves in addition to the victim.

    Attributes:
        settings: Its rules.
        api: Answers and charges.
        keys: Who takes part.
        hidden: What copies are scored on.
        store: The copies.
        judge: Scores them.
        clock: Returns the time.
    """

    settings: ChallengeFile
    api: ServedAPI
    keys: Keys
    hidden: Hidden
    store: Submissions
    judge: Judge
    clock: Callable[[], datetime]

    def router(self) -> APIRouter:
        """Return the routes."""
        router, rules = APIRouter(), self.settings.challenge
        uploads: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(UPLOADS))
        Team = Annotated[str, Depends(who_asks(self.keys))]

        @router.post("/submissions", status_code=202, openapi_extra=UPLOAD)
        async def submit(
            request: Request, team: Team, network: Annotated[str | None, Query(max_length=50)] = None
        ) -> dict[str, Any]:
            """Accept a copy: a model in ONNX, or weights in safetensors with the name of their network."""
            if self._over():
                raise Problem("closed", f"copies were accepted until {rules.deadline.isoformat()}")
            if network is not None and network not in NETWORKS:
                raise Problem("invalid", f"unknown network {shown(network)}: use one of {', '.join(NETWORKS)}")
            if network is None and self.judge.sandbox is None:
                raise Problem("format", "this server does not accept ONNX: send safetensors and name the network")
            async with uploads[team]:
                content = await body_of(request, megabytes=rules.megabytes, seconds=self.settings.seconds)
                if not content:
                    raise Problem("invalid", "the body is empty: send the file that holds the copy")
                return (await answered(self._take, team, content, network)).shown()

        @router.get("/submissions")
        async def submissions(team: Team) -> list[dict[str, Any]]:
            """Return the team's copies, the oldest first."""
            return [one.shown() for one in await answered(lambda: self.store.all(team=team))]

        @router.get("/submissions/{name}")
        async def submission(name: str, team: Team) -> dict[str, Any]:
            """Return one of the team's copies."""
            found = await answered(lambda: self.store.all(team=team, id=name))
            if not found:
                raise Problem("missing", "the team has no such copy: see /submissions")
            return found[0].shown()

        @router.get("/", response_class=HTMLResponse)
        async def page(request: Request) -> HTMLResponse:
            """Show the scoreboard."""
            said = {"address": str(request.base_url).rstrip("/"), "answers": self.api.granularity}
            return HTMLResponse(board.to_page(await answered(self._rows), **self._about(), **said), headers=HEADERS)

        @router.get("/scoreboard.csv")
        async def as_csv() -> Response:
            """Return the scoreboard for a spreadsheet."""
            return Response(board.to_csv(await answered(self._rows)), media_type="text/csv; charset=utf-8")

        @router.get("/scoreboard.json")
        async def as_json() -> dict[str, Any]:
            """Return the scoreboard for a program."""
            return self._about() | {"rows": [row.flat() for row in await answered(self._rows)]}

        @router.get("/starter.ipynb")
        async def starter(request: Request) -> Response:
            """Return the starter notebook, with the address of this server filled in."""
            text = STARTER.read_text(encoding="utf-8").replace(ADDRESS, str(request.base_url).rstrip("/"))
            return Response(text, media_type="application/x-ipynb+json")

        return router

    def _over(self) -> bool:
        return self.clock() >= self.settings.challenge.deadline

    def _take(self, team: str, content: bytes, network: str | None) -> Submission:
        queries = self.api.usage(f"{NAME}/{team}").queries
        try:
            taken = self.store.add(team, content, network=network, queries=queries)
        except TooMany as error:
            raise Problem("submissions", str(error)) from None
        if taken.state == WAITING:
            self.judge.put(taken)
        return taken

    def _rows(self) -> list[board.Standing]:
        usage = {team: self.api.usage(f"{NAME}/{team}") for team in self.keys.teams()}
        return board.rows(self.store.all(), usage, self.hidden, over=self._over())

    def _about(self) -> dict[str, Any]:
        rules, public = self.settings.challenge, int(self.hidden.public.sum())
        return {
            "title": rules.title,
            "deadline": rules.deadline.isoformat(),
            "deadline_in_words": f"{rules.deadline:%Y-%m-%d %H:%M %Z}",
            "over": self._over(),
            "budget": self.settings.victims[NAME].budget,
            "submissions_a_day": rules.submissions,
            "queries_a_copy": rules.queries_a_copy,
            "public_images": public,
            "margin": board.margin(public),
            "final_images": len(self.hidden.public) - public,
        }
