"""What is published beside the pages: a slide deck of each chapter."""

import base64
import re
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import nbformat
from nbconvert.exporters import SlidesExporter
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook
from traitlets.config import Config

from extractbook.build import execute, pages
from extractbook.build.plain import address, plain
from extractbook.sphinx import template

SLIDES = pages.PAGES / "slides"
HEADING = re.compile(r"^#{2,3} (.+)$", re.MULTILINE)
PICTURES = ("image/svg+xml", "image/png")


def write_slides() -> None:
    """Write a deck of each built chapter, with the scripts that show it: nothing is requested from other hosts."""
    shutil.rmtree(SLIDES, ignore_errors=True)
    SLIDES.mkdir(parents=True)
    reveal = Path(str(import_module("sphinx_revealjs").__file__)).parent / "_static" / "revealjs"
    for part in ("dist", "plugin/notes"):
        shutil.copytree(reveal / part, SLIDES / "reveal" / part, ignore=shutil.ignore_patterns("*.map", "*.esm.js"))
    exporter = SlidesExporter(
        config=Config(SlidesExporter={"reveal_url_prefix": "reveal", "reveal_theme": "white", "exclude_input": True})
    )
    exporter.raw_template = template("slides", mathjax="../_static/mathjax/tex-chtml.js")
    for path in execute.notebooks():
        if path.name[0].isdigit():
            body, _ = exporter.from_notebook_node(deck(nbformat.read(pages.SOURCE / "book" / path.name, 4), path.stem))
            (SLIDES / f"{path.stem}.html").write_text(body, encoding="utf-8")
    print(SLIDES)


def deck(notebook: NotebookNode, page: str) -> NotebookNode:
    """Return a chapter's slides: its question, each figure between its introduction and its observation, key points."""
    cells = [cell for cell in notebook.cells if not {"exercise", "solution"} & set(cell.metadata.get("tags", []))]
    names = (r"^# (.+)", r"\*\*Question\.\*\* (.+)", r"\*\*You will be able to\*\* (.+)")
    title, question, able = (re.findall(name, cells[0].source, re.MULTILINE)[0] for name in names)
    listed = "\n".join(f"- {part.strip(' .')}" for part in able.split(";"))
    slides = [
        _slide(f"# {title}\n\n{question}\n\n[The chapter]({address(page)})"),
        _slide(f"## You will be able to\n\n{listed}"),
    ]
    heading = title
    for place, cell in enumerate(cells):
        if cell.cell_type == "markdown":
            heading = (HEADING.findall(cell.source) or [heading])[-1]
            if "## Key points\n" in cell.source:
                points = cell.source.split("## Key points\n")[1].split("\n**Next")[0]
                slides.append(_slide(f"## Key points\n{plain(points, page)}"))
        for picture in _pictures(cell):
            asked = _paragraph(cells[place - 1], last=True)
            seen = next(filter(None, (_paragraph(after, last=False) for after in cells[place + 1 :])), "")
            slides.append(_slide(f"## {heading}\n\n{plain(asked, page)}"))
            slides.append(_slide(f"{picture}\n\n{plain(seen, page)}", kind="subslide"))
    return new_notebook(cells=slides, metadata={"title": title})


def _slide(text: str, *, kind: str = "slide") -> NotebookNode:
    return new_markdown_cell(text, metadata={"slideshow": {"slide_type": kind}})


def _pictures(cell: NotebookNode) -> Iterator[str]:
    """Yield a cell's figures as Markdown with their alternative texts."""
    alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
    for output in cell.get("outputs", []):
        kind = next((kind for kind in PICTURES if kind in output.get("data", ())), None)
        if kind and alt:
            data = output.data[kind]
            source = data if kind == "image/png" else base64.b64encode(data.encode()).decode()
            yield f'<img alt="{alt}" src="data:{kind};base64,{source.strip()}">'


def _paragraph(cell: NotebookNode, *, last: bool) -> str:
    """Return the first or the last paragraph of a text that is not a heading, a table or a block."""
    parts = [part.strip() for part in cell.source.split("\n\n")] if cell.cell_type == "markdown" else []
    plainly = [part for part in parts if part and part[0] not in "#|:`<(" and not part.startswith("**")]
    return plainly[-1 if last else 0] if plainly else ""
