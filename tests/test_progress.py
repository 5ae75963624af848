"""What is shown of progress: a bar for who watches, a line for a log, nothing where nothing is wanted."""

import re
import sys

import pytest
from tqdm.auto import tqdm

from extractlib import progress


@pytest.fixture
def in_a_log(monkeypatch):
    """Standard error is no terminal, and this is no notebook."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)


def test_a_log_gets_one_line_for_a_finished_step(in_a_log, capsys):
    with progress.bar(2_500, what="training", unit="steps") as bar:
        for _ in range(1_000):
            bar.update()
        bar.update(500)
    assert re.fullmatch(r"training: 1,500 of 2,500 steps, \d\.\d s\n", capsys.readouterr().err)


def test_a_step_that_fails_says_how_far_it_came(in_a_log, capsys):
    with pytest.raises(KeyError), progress.bar(10, what="collecting", unit="queries") as bar:
        bar.update(3)
        raise KeyError
    assert capsys.readouterr().err.startswith("collecting: 3 of 10 queries, ")


def test_a_terminal_and_a_notebook_get_a_bar_that_reads_well(in_a_log, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress.bar(4, what="decoding train", unit="images") as bar:
        assert isinstance(bar, tqdm)
        bar.update(4)
    assert re.search(r"decoding train: 100%.* 4/4 \[.*\d images/s\]", capsys.readouterr().err)
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "ipykernel", object())
    with progress.bar(4, what="training", unit="steps") as bar:
        assert isinstance(bar, tqdm)


@pytest.mark.parametrize("watched", [True, False])
def test_nothing_is_shown_where_nothing_is_wanted(watched, in_a_log, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: watched, raising=False)
    with progress.bar(4, what="training", unit="steps", show=False) as bar:
        bar.update(4)
    assert capsys.readouterr().err == ""
