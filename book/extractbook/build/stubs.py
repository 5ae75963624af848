"""Remove solutions from an exercise's cell, so that the rest shows where the answer goes and what it is called."""

import re

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
BLOCK = re.compile(rf"^(?P<indent> *){BEGIN}\n(?P<code>.*?)^ *{END}(?:\n|\Z)", re.MULTILINE | re.DOTALL)
MARKER = re.compile(rf"^ *({BEGIN}|{END})(\n|\Z)", re.MULTILINE)
ANSWER = re.compile(r"^(?:def )?(?P<name>\w+)(?: = None|\(.*\):)  # your answer$", re.MULTILINE)
"""The line of a cell that names the answer: a value that is set, or a function that is filled in."""


def without_markers(code: str) -> str:
    """Return code without the lines that mark a solution."""
    return MARKER.sub("", code)


def marked(code: str, answer: str) -> str:
    """Return a solution's cell with a line outside its markers that names the answer, and without its trial runs."""

    def named(block: re.Match) -> str:
        if block["indent"]:
            return block[0]
        sets = re.search(rf"^{answer}\b.* = ", block["code"], re.MULTILINE)
        return f"{answer} = None  # your answer\n{block[0]}" if sets else ""

    return re.sub(rf"^(def {answer}\(.*\):)$", r"\1  # your answer", BLOCK.sub(named, code), flags=re.MULTILINE)


def stub(code: str) -> str:
    """Return a cell without its solutions: a function raises NotImplementedError, other code is removed."""
    return BLOCK.sub(
        lambda block: f'{block["indent"]}raise NotImplementedError("your code here")\n' if block["indent"] else "", code
    )
