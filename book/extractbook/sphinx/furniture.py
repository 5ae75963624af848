"""What stands around the pages, as a Sphinx extension: their address, how to cite them, what is said where none is.

The repository's public address stands in _config.yml alone; all others follow from it.
"""

import re
import subprocess
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from extractbook.sphinx import template

ROOT = Path(__file__).resolve().parents[3]


def configuration(name: str = "_config.yml") -> dict:
    """Return what _config.yml, or another file beside it, holds."""
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def repository() -> str:
    """Return the repository's public address, for example ``https://github.com/owner/name``."""
    return configuration()["repository"]["url"]


def site() -> str:
    """Return the address at which GitHub Pages publishes the repository's pages."""
    owner, name = urlsplit(repository()).path.strip("/").split("/")
    return f"https://{owner.lower()}.github.io/{name}/"


def commit() -> str:
    """Return the commit that the book is at, or its branch where no clone is around it."""
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() or configuration()["repository"]["branch"]


def setup_cell(commit: str = "main") -> str:
    """Return the first cell of a notebook: where the package is missing it installs it, as it is at a commit.

    It needs no clone and no git, keeps the torch, torchvision and numpy that are there, and where nothing can be
    fetched says so in a sentence and stops. A mere folder of the package's name, as a clone on the path is, has no
    origin and is none.
    """
    return template("setup_cell", repository=repository(), commit=commit)


def bibtex(page: str, title: str) -> str:
    """Return the BibTeX entry of a page, whose name is like ``book/05_knockoff``, from CITATION.cff."""
    facts = {"cited": configuration("CITATION.cff"), "year": configuration()["copyright"], "site": site()}
    return template("bibtex", page=page, title=title, **facts)


def derive(app, config) -> None:
    """Set what follows from the repository's address, and that the search shows text before names of the code."""
    config.html_search_scorer = str(Path(__file__).with_name("templates") / "scorer.js")
    config.html_baseurl = config.ogp_site_url = site()
    config.notfound_urls_prefix = path = urlsplit(site()).path
    config.notfound_context = {"title": "No such page", "body": template("not_found", path=path)}


def finish(app, page: str, _template: str, context: dict, doctree) -> None:
    """Complete a page: how to cite a chapter, each id once, no list role where no items are, nothing of Thebe."""
    if doctree is not None:
        # Its entries, as docutils writes them, are no items of a list.
        context["body"] = ids_apart(context["body"]).replace('<div role="list" class="citation-list">', "<div>")
        if Path(page).name[:2].isdigit():
            context["body"] += template("cite", entry=bibtex(page, context["title"].split(". ", 1)[-1]))
    # Another host would serve Thebe's scripts, and nothing here uses them.
    scripts = context["script_files"]
    context["script_files"] = [one for one in scripts if "thebe" not in f"{one.filename} {one.attributes}".lower()]


def ids_apart(body: str) -> str:
    """Number the ids that sphinx-exercise writes alike for all exercises, and for all solutions, of a page."""
    numbers = {"exercise": count(1), "solution": count(1)}
    alike = r'(?<= id=")(exercise|solution)-content(?=")'
    return re.sub(alike, lambda found: f"{found[0]}-{next(numbers[found[1]])}", body)


def setup(app) -> dict:
    """Register with Sphinx."""
    app.connect("config-inited", derive)
    app.connect("html-page-context", finish, priority=900)  # after those that add scripts
    return {"parallel_read_safe": True, "parallel_write_safe": True}
