"""Write what is measured into the README: the headline results with their figure, and the output of its ten lines.

``make readme`` runs the ten lines; the results are read from the committed rows.
"""

import contextlib
import io
import re
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import torch

from extractbook import book
from extractbook.figures import render
from extractbook.reproduction.judging import Verdict
from extractbook.sphinx import furniture

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCK = re.compile(r"(```python\n)(.*?)(```\n\n```text\n)(.*?)(```)", re.DOTALL)


RESULTS = re.compile(r"(<!-- results: .+ -->\n)(.*?)(<!-- end of results -->)", re.DOTALL)
FIGURE = README.parent / "book" / "_static" / "front.png"


def results() -> str:
    """Return the headline results in Markdown, each with the chapter that explains it."""
    rows, ledger = book.frame(*book.TABLES, only=book.ONLY), book.ledger("drawn")
    copies = book.frame("reproduction")
    mean = book.conditions(rows).data.groupby("Group")["recovery"].mean()
    words = Counter(str(ledger.word(claim)) for claim in book.claims())
    waiting = words.pop("not run", 0)
    times = {1: "once", 2: "twice"}
    decided = ", ".join(f"“{word}” {times.get(count, f'{count} times')}" for word, count in words.items())
    judged = f"{words.total()} have been judged so far" if waiting else "all have been judged"
    tested = [entry.verdict for entry in ledger.of("C13") if entry.verdict is not Verdict.NOT_TESTABLE]
    passed = tested.count(Verdict.HOLDS)
    passing = f", and passes the detector on {passed} of {len(tested)} tasks where that can be tested" if passed else ""
    told = {
        "05_knockoff": f"With {rows['budget'].max():,} images from a public pool and the public initial weights that "
        f"the victim started from, a copy recovers {copies.groupby('task')['recovery'].mean().mean():.0%} of the "
        f"victim's accuracy on average over five victims ({_seeds(copies)}).",
        "10_realistic": f"When a detector catches queries and the API shuffles the answers to them, such an attacker "
        f"recovers {mean['queries detected, answers shuffled']:.0%}, where always answering with the most frequent "
        f"class gets {mean['constant predictor']:.0%}. An attacker with images like the victim's recovers "
        f"{mean['own images, a quarter of the queries']:.0%} with a quarter of the queries when there is no defense"
        f"{passing} ({_seeds(rows)}).",
        "12_ledger": f"Of {words.total() + waiting} claims, the paper's and ours, with tests that were frozen before "
        f"their rows were run, {judged}: {decided}.",
    }
    return "".join(f"- {text} [How]({furniture.site()}book/{page}.html)\n" for page, text in told.items())


def _seeds(rows: pd.DataFrame) -> str:
    """Return the seeds of rows in words, and whether they are only exploring ones."""
    found = sorted(set(rows.loc[rows["table"] == "reproduction", "seed"]))
    many = f"{len(found)} seeds" if len(found) > 1 else f"seed {found[0]}"
    return f"exploring {many}" if "exploring" in rows.attrs["editions"] else many


def figure() -> bytes:
    """Return the front figure, as a PNG."""
    return render(book.conditions(book.frame(*book.TABLES, only=book.ONLY)), kind="png")


def code(text: str) -> str:
    """Return the ten lines that a README shows."""
    found = BLOCK.search(text)
    assert found, "the README has no block of Python followed by a block of text"
    return found[2]


def printed(source: str) -> str:
    """Run Python source, in this process and with one thread, and return what it prints and the seconds it took."""
    torch.set_num_threads(1)
    started, output = time.monotonic(), io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(source, str(README), "exec"), {"__name__": "readme"})  # the README's own text
    return f"{output.getvalue()}({time.monotonic() - started:.0f} seconds on one core)\n"


def main() -> None:
    """Replace the results, their figure, and the block of text after the ten lines."""
    text = RESULTS.sub(lambda found: found[1] + results() + found[3], README.read_text(encoding="utf-8"))
    FIGURE.write_bytes(figure())
    said = printed(code(text))
    README.write_text(BLOCK.sub(lambda found: found[1] + found[2] + found[3] + said + found[5], text), encoding="utf-8")
    print(said, end="")


if __name__ == "__main__":
    main()
