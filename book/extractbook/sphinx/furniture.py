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
    """Return the first cell of a notebook, which makes it run where there is no clone of the book around it."""
    name = repository().rsplit("/", 1)[1]
    return f"""\
# On Colab, Kaggle or a JupyterHub: fetch the book, install what is missing.
from pathlib import Path

if not Path("install.py").exists():
    !git clone -q {repository()}
    !git -C {name} checkout -q {commit}
    %cd -q {name}/book
%run install.py"""


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


def cite(app, page: str, template: str, context: dict, doctree) -> None:
    """Add to the end of a chapter how to cite it, folded."""
    name = Path(page).name
    if doctree is not None and name[:2].isdigit():
        entry = html.escape(bibtex(page, context["title"].split(". ", 1)[-1]))
        context["body"] += (
            '<details class="fold" id="cite"><summary>Cite this chapter</summary>'
            f'<div class="highlight"><pre tabindex="0">{entry}</pre></div></details>'
        )


def mend_lists(app, page: str, template: str, context: dict, doctree) -> None:
    """Take from the bibliography the role of a list: its entries, as docutils writes them, are no items of one."""
    if doctree is not None:
        context["body"] = context["body"].replace('<div role="list" class="citation-list">', "<div>")


def tell_ids_apart(app, page: str, template: str, context: dict, doctree) -> None:
    """Number the ids that sphinx-exercise writes alike for all exercises, and for all solutions, of a page."""
    if doctree is not None:
        numbers = {"exercise": count(1), "solution": count(1)}
        context["body"] = re.sub(
            r'(?<= id=")(exercise|solution)-content(?=")',
            lambda found: f"{found[0]}-{next(numbers[found[1]])}",
            context["body"],
        )


def leave_out_thebe(app, page: str, template: str, context: dict, doctree) -> None:
    """Take from a page the scripts of Thebe, which nothing here uses and another host would serve."""
    scripts = {script: f"{script.filename} {script.attributes}".lower() for script in context["script_files"]}
    context["script_files"] = [script for script, text in scripts.items() if "thebe" not in text]


def setup(app) -> dict:
    """Register with Sphinx."""
    app.connect("config-inited", derive)
    app.connect("html-page-context", cite)
    app.connect("html-page-context", mend_lists)
    app.connect("html-page-context", tell_ids_apart)
    app.connect("html-page-context", leave_out_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
