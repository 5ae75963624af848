"""What stands around the pages, as a Sphinx extension: their address, how to cite them, what is said where none is.

The repository's public address stands in _config.yml alone; all others follow from it.
"""

import html
import re
import subprocess
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import yaml

ROOT = Path(__file__).resolve().parents[3]

NOT_FOUND = """
<h1>There is no such page</h1>
<p>It may have moved: try the search, or begin at the <a href="{path}book/index.html">front page</a>.</p>
"""

CITE = """<details class="fold" id="cite"><summary>Cite this chapter</summary>
<div class="highlight"><pre tabindex="0">{}</pre></div></details>"""


def configuration() -> dict:
    """Return what _config.yml holds."""
    return yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))


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
    return f"""\
# On Colab, Kaggle or a JupyterHub: install the book's package.
import subprocess
import sys
from importlib import invalidate_caches, metadata, util

if not getattr(util.find_spec("extractlib"), "origin", None):
    keep = [f"{{name}}=={{metadata.version(name)}}" for name in
            ("torch", "torchvision", "numpy") if util.find_spec(name)]
    url = "{repository()}/archive/{commit}.zip"
    pip = [sys.executable, "-m", "pip", "install", "-qq", url, "ipywidgets"]
    done = subprocess.run([*pip, *keep], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit("The book's package cannot be installed: is there "
                         f"no internet here? pip says: {{done.stderr}}")
    invalidate_caches()"""


def bibtex(page: str, title: str) -> str:
    """Return the BibTeX entry of a page, whose name is like ``book/05_knockoff``, from CITATION.cff."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    names = (author.get("name") or f"{author['family-names']}, {author['given-names']}" for author in cited["authors"])
    # Braces around a group's name keep BibTeX from taking it apart.
    fields = {
        "author": " and ".join(name if "," in name else f"{{{name}}}" for name in names),
        "title": title,
        "booktitle": cited["title"],
        "version": cited["version"],
        "year": configuration()["copyright"],
        "url": f"{site()}{page}.html",
    }
    lines = "".join(f"  {key} = {{{value}}},\n" for key, value in fields.items())
    return f"@incollection{{extractlib-{Path(page).name.replace('_', '-')},\n{lines}}}"


def derive(app, config) -> None:
    """Set what follows from the repository's address."""
    config.html_baseurl = config.ogp_site_url = site()
    config.notfound_urls_prefix = path = urlsplit(site()).path
    config.notfound_context = {"title": "No such page", "body": NOT_FOUND.format(path=path)}


def finish(app, page: str, template: str, context: dict, doctree) -> None:
    """Complete a page: how to cite a chapter, each id once, no list role where no items are, nothing of Thebe."""
    if doctree is not None:
        context["body"] = ids_apart(context["body"])
        # Its entries, as docutils writes them, are no items of a list.
        context["body"] = context["body"].replace('<div role="list" class="citation-list">', "<div>")
        if Path(page).name[:2].isdigit():
            context["body"] += CITE.format(html.escape(bibtex(page, context["title"].split(". ", 1)[-1])))
    # Another host would serve Thebe's scripts, and nothing here uses them.
    scripts = {script: f"{script.filename} {script.attributes}".lower() for script in context["script_files"]}
    context["script_files"] = [script for script, text in scripts.items() if "thebe" not in text]


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
