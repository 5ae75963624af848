"""Print counts of what each chapter of the book shows: `python -m benchmarks.chapters`.

The columns: visible lines of code, the share and number of them that teach, lines of the median, 90th percentile and
longest visible cell, pictures other than bar charts, words, minutes (by words and cells, and of the exercises as they
are labeled), different references, exercises that attack or defend, results asked about before and read after.
"""

import ast
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat

BOOK = Path(__file__).resolve().parents[1] / "book"

HIDDEN = {"remove-cell", "remove-input", "hide-input", "hide-cell"}
ASIDE = {"exercise", "solution"}
"""Tags of cells whose code is not on the page, and of cells that are not part of a chapter's own run."""

PLUMBING = {
    # prints and displays
    *("print", "display", "display_data"),
    # plots
    *("plt", "axes", "axis", "fig", "figure", "subplots", "imshow", "plot", "scatter", "hist", "savefig"),
    *("set_title", "set_xlabel", "set_ylabel", "legend", "make_grid"),
    # formats
    *("format", "join", "to_markdown", "to_html", "to_string", "style", "rename", "dedent", "shorten"),
    # reads rows, and arranges them
    *("frame", "rows", "read_rows", "read_csv", "read_json", "groupby", "pivot", "pivot_table", "unstack", "stack"),
    *("set_index", "reset_index", "sort_values", "sort_index", "to_frame", "DataFrame", "dropna", "drop_duplicates"),
    # keeps time
    *("monotonic", "perf_counter"),
}
"""Names of calls that only print, display, plot, format or read rows: a call's own, or one that it is chained to."""

NEUTRAL = {
    *("len", "list", "dict", "tuple", "set", "zip", "range", "enumerate", "sorted", "reversed", "str", "int", "float"),
    *("round", "items", "keys", "values", "head", "tail", "copy", "tolist", "item", "numpy", "mean", "std", "sum"),
    *("min", "max", "query", "count", "agg", "first"),
}
"""Calls that make a line neither plumbing nor teaching: its other calls decide."""

OURS = {"served", "check", "compare", "run_cell"}
"""Functions of `book` that are not plumbing: they serve a victim, judge an answer, run an experiment."""

SETTINGS = {"scale", "started", "caption", "alt", "name"}
"""Names that are assigned only for the page."""

ASKS = re.compile(r"\?|\b[Pp]redict|\bGuess")
RESULT = re.compile(r"book\.show(?:_html)?\(|book\.say\(\s*(?:\w+\.)?\w*table\(")
PICTURE = re.compile(r"book\.show\(")
BARS = re.compile(r"(?:^|[^\w])(?:book\.|chapter_\d+\.)?\w*bars?(?:_\w+)?\(")
FENCE = re.compile(r"^(```|:::|~~~).*?^\1", re.MULTILINE | re.DOTALL)
CITED = re.compile(r"\{cite(?::t|:p)?\}`([\w, :-]+)`")
TITLE = re.compile(r"^:{3,}\{exercise\} [\d.]+ .+: ([\w ]+), (\d+) minutes", re.MULTILINE)

WORDS_A_MINUTE, MINUTES_A_CELL = 150, 1.0
"""How fast a chapter is read: its words, and each visible cell with what it shows."""


@dataclass(frozen=True)
class Counts:
    """What a chapter shows (see the module's docstring).

    Attributes:
        lines: Code lines of each visible cell, without blank lines and comments.
        teaching: How many of them teach.
        pictures: Figures other than bar charts.
        words: Words of its own text.
        exercise_minutes: Minutes of all exercises, as they are labeled.
        references: Different keys cited.
        attacks: Exercises of the kind "attack or defend".
        results, asked, read: Figures and tables, those that the text before asks about, and those that text follows.
    """

    lines: tuple[int, ...]
    teaching: int
    pictures: int
    words: int
    exercise_minutes: int
    references: int
    attacks: int
    results: int
    asked: int
    read: int

    @classmethod
    def of(cls, cells: Sequence[nbformat.NotebookNode]) -> "Counts":
        """Count a chapter's cells."""
        own = [cell for cell in cells if not ASIDE & tags(cell)]
        lines = [teaching_lines(cell.source) for cell in visible(cells)]
        lines = [flags for flags in lines if flags]  # a cell of comments alone shows no code
        text = "\n\n".join(prose(cell.source) for cell in own if cell.cell_type == "markdown")
        exercises = TITLE.findall("\n".join(cell.source for cell in cells if cell.cell_type == "markdown"))
        shown = list(results(own))
        return cls(
            lines=tuple(len(flags) for flags in lines),
            teaching=sum(sum(flags) for flags in lines),
            pictures=sum(map(is_picture, (cell.source for cell in own if cell.cell_type == "code"))),
            words=len(text.split()),
            exercise_minutes=sum(int(minutes) for _, minutes in exercises),
            references=len({key.strip() for keys in CITED.findall(text) for key in keys.split(",")}),
            attacks=sum(kind == "attack or defend" for kind, _ in exercises),
            results=len(shown),
            asked=sum(asked for asked, _ in shown),
            read=sum(read for _, read in shown),
        )

    @property
    def share(self) -> float:
        """The share of the visible lines that teach; 1 without any lines."""
        return self.teaching / sum(self.lines) if self.lines else 1.0

    @property
    def median(self) -> float:
        """Lines of the median visible cell."""
        return statistics.median(self.lines or (0,))

    @property
    def most(self) -> int:
        """Lines that nine visible cells in ten do not exceed."""
        return sorted(self.lines or (0,))[-(len(self.lines) // 10) - 1]

    @property
    def minutes(self) -> int:
        """Minutes to read it, to the nearest five."""
        return 5 * round((self.words / WORDS_A_MINUTE + MINUTES_A_CELL * len(self.lines)) / 5)


def tags(cell: nbformat.NotebookNode) -> set[str]:
    """Return a cell's tags."""
    return set(cell.metadata.get("tags", ()))


def visible(cells: Sequence[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Return the code cells of a chapter's own run whose code is on the page."""
    code = (cell for cell in cells if cell.cell_type == "code" and not ASIDE & tags(cell))
    return [cell for cell in code if not HIDDEN & tags(cell)]


def prose(markdown: str) -> str:
    """Return Markdown without fenced blocks and tables."""
    lines = FENCE.sub("", markdown).splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("|"))


def is_picture(source: str) -> bool:
    """Return whether a cell shows a figure other than a bar chart."""
    return bool(PICTURE.search(source)) and not BARS.search(source)


def results(own: Sequence[nbformat.NotebookNode]) -> Iterator[tuple[bool, bool]]:
    """Yield for each figure and table whether the text before it asks, and whether text follows before the next one."""
    for place, cell in enumerate(own):
        if cell.cell_type == "code" and RESULT.search(cell.source):
            before = _text(own[:place][::-1])
            yield bool(ASKS.search(before)), bool(_text(own[place + 1 :]).strip())


def _text(cells: Sequence[nbformat.NotebookNode]) -> str:
    """Return the text of the first cells that hold text, skipping code."""
    kinds = [cell.cell_type for cell in cells]
    start = kinds.index("markdown") if "markdown" in kinds else len(cells)
    end = start
    while end < len(cells) and kinds[end] == "markdown":
        end += 1
    return "\n".join(prose(cell.source) for cell in cells[start:end])


# -- lines that teach -------------------------------------------------------------


def teaching_lines(source: str) -> list[bool]:
    """Return for each code line of a cell whether it teaches: it does unless it is plumbing.

    A line is plumbing if its statement only imports, prints, displays, plots, formats or reads rows, by `PLUMBING`. The
    first line of a loop, function or block counts as its body does.
    """
    lines = source.splitlines()
    shell = {number for number, line in enumerate(lines, start=1) if line.lstrip().startswith(("%", "!"))}
    tree = ast.parse("\n".join("" if number in shell else line for number, line in enumerate(lines, start=1)))
    teaches = dict.fromkeys(shell, False)
    for statement in tree.body:
        teaches |= _flags(statement)
    code = [number for number in sorted(teaches) if lines[number - 1].strip() and not _comment(lines[number - 1])]
    return [teaches[number] for number in code]


def _comment(line: str) -> bool:
    return line.lstrip().startswith("#")


def _flags(statement: ast.stmt) -> dict[int, bool]:
    """Return for each line of a statement whether it teaches."""
    start = min([statement.lineno, *(one.lineno for one in getattr(statement, "decorator_list", ()))])
    span = range(start, (statement.end_lineno or start) + 1)
    bodies = [getattr(statement, part, ()) for part in ("body", "orelse", "finalbody")]
    bodies += [handler.body for handler in getattr(statement, "handlers", ())]
    inner = {number: flag for body in bodies for one in body for number, flag in _flags(one).items()}
    own = any(inner.values()) if inner else not is_plumbing(statement)
    return {number: inner.get(number, own) for number in span}


def is_plumbing(statement: ast.stmt) -> bool:
    """Return whether a statement only imports, prints, displays, plots, formats or reads rows."""
    if isinstance(statement, ast.Import | ast.ImportFrom | ast.Pass | ast.Global | ast.Nonlocal):
        return True
    if isinstance(statement, ast.Assign) and {ast.unparse(target) for target in statement.targets} <= SETTINGS:
        return True
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Name | ast.Constant):
        return True
    formats = any(isinstance(node, ast.JoinedStr) for node in ast.walk(statement))
    calls = [_names(node.func) for node in ast.walk(statement) if isinstance(node, ast.Call)]
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call) and _is_plumbing(calls[0]):
        return True  # what it is given was measured before, or should have been
    kinds = [_is_plumbing(names) for names in calls if names[-1] not in NEUTRAL or _is_plumbing(names)]
    return all(kinds) and (bool(kinds) or formats)


def _is_plumbing(names: Sequence[str]) -> bool:
    return not PLUMBING.isdisjoint(names) or (names[0] == "book" and OURS.isdisjoint(names))


def _names(function: ast.expr) -> list[str]:
    """Return the names that a call is chained to, in order: ``book.frame("x").mean`` gives book, frame, mean."""
    if isinstance(function, ast.Attribute):
        return [*_names(function.value), function.attr]
    if isinstance(function, ast.Call):
        return _names(function.func)
    if isinstance(function, ast.Subscript):
        return _names(function.value)
    return [function.id] if isinstance(function, ast.Name) else [""]


def main() -> None:
    """Print a line for each chapter."""
    heads = ("visible", "teach", "lines", "median", "90%", "longest", "pictures", "words", "min", "+ ex.", "refs")
    print(f"{'chapter':<18}" + "".join(f"{head:>9}" for head in (*heads, "attacks", "asked", "read")))
    for path in sorted(BOOK.glob("[01][0-9]_*.ipynb")):
        found = Counts.of(nbformat.read(path, as_version=4).cells)
        values = (
            *(sum(found.lines), f"{found.share:.0%}", found.teaching, f"{found.median:g}", found.most),
            *(max(found.lines, default=0), found.pictures, found.words, found.minutes, found.exercise_minutes),
            *(found.references, found.attacks, f"{found.asked}/{found.results}", f"{found.read}/{found.results}"),
        )
        print(f"{path.stem:<18}" + "".join(f"{value:>9}" for value in values))


if __name__ == "__main__":
    main()
