"""The pages whose code a reader copies: each piece runs, and what it prints is what the page shows."""

import contextlib
import io
import re

import httpx
import pytest
import torch

from extractbook.build import execute
from extractlib.api.server import running

PIECE = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")

CLOSE = 0.06
"""How far a printed number may be from the page's: other processors round otherwise, and training amplifies that."""


def run_briefly(app, *, port):
    """Serve an application as uvicorn.run does, but on a free port, and only until it has answered."""
    with running(app) as address:
        assert httpx.get(f"{address}/healthz").json() == {"status": "ok"}


def pieces(name: str) -> list[re.Match]:
    return list(PIECE.finditer((execute.BOOK / name).read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", ["own_black_box.md", pytest.param("surrogate_stays_low.md", marks=pytest.mark.slow)])
def test_each_piece_runs_and_prints_what_the_page_shows(name, tmp_path, monkeypatch):
    monkeypatch.setenv("EXTRACTLIB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("uvicorn.run", run_briefly)
    found, space = pieces(name), {}
    assert len(found) >= 5
    for piece in found:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), torch.random.fork_rng():
            torch.manual_seed(0)
            exec(compile(piece["code"], name, "exec"), space)
        shown, given = piece["output"] or "", printed.getvalue()
        assert NUMBER.sub("#", given) == NUMBER.sub("#", shown), piece["code"]
        numbers = [[float(number.replace(",", "")) for number in NUMBER.findall(text)] for text in (given, shown)]
        assert numbers[0] == pytest.approx(numbers[1], abs=CLOSE), piece["code"]


@pytest.mark.parametrize("name", ["own_black_box.md", "surrogate_stays_low.md"])
def test_no_piece_is_long(name):
    assert max(len(piece["code"].splitlines()) for piece in pieces(name)) <= 20
    lines = [line for piece in pieces(name) for line in piece["code"].splitlines()]
    assert max(map(len, lines)) <= 110
