"""Print how many lines of code each part of the code has, without docstrings, comments and blanks: `make sizes`."""

import ast
import re
import tokenize
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIBRARY, BOOK = ROOT / "extractlib", ROOT / "book" / "extractbook"
SERVED = r"(serve|cli_serve|cli_challenge|challenge/\w+|api/(batching|client|keys|server|wire))\.py"
PARTS = {
    "library": (LIBRARY, rf"(?!data/drawn/|{SERVED})"),
    "drawn": (LIBRARY, r"data/drawn/"),
    "server": (LIBRARY, SERVED),
    "reproduction": (BOOK, r"reproduction/"),
    "rest of extractbook": (BOOK, r"(?!reproduction/|exercises/chapter_)"),
    "exercises' chapters": (BOOK, r"exercises/chapter_"),
}
"""For each part, the package's folder and a pattern for how the paths that belong to it begin."""

LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.ENCODING,
}


def main() -> None:
    """Print a line for each part."""
    for name, (folder, beginning) in PARTS.items():
        sources = [path for path in folder.rglob("*.py") if re.match(beginning, path.relative_to(folder).as_posix())]
        print(f"{name:<24}{sum(code_lines(path.read_bytes()) for path in sources):>6,}")


def code_lines(source: bytes) -> int:
    """Return the number of lines that hold code, not counting docstrings."""
    texts = [
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    prose = {line for text in texts for line in range(text.lineno, text.end_lineno + 1)}
    tokens = (token for token in tokenize.tokenize(BytesIO(source).readline) if token.type not in LAYOUT)
    code = (range(token.start[0], token.end[0] + 1) for token in tokens)
    return len({line for lines in code for line in lines} - prose)


if __name__ == "__main__":
    main()
