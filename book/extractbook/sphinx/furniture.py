"""What stands around the pages, as a Sphinx extension: their address, how to cite them, what is said where none is.

The repository's public address stands in _config.yml alone; all others follow from it.
"""

import re
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from string import ascii_lowercase
from typing import Any
from urllib.parse import urlencode, urlsplit

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


def launch(page: str) -> dict[str, str]:
    """Return by the service's name where a page's notebook opens; for a JupyterHub, where its link is made."""
    parts, branch = urlsplit(repository()).path.strip("/"), configuration()["repository"]["branch"]
    file = f"book/launch/{page}.ipynb"
    raw = f"https://raw.githubusercontent.com/{parts}/{branch}/{file}"
    opened = f"lab/tree/{parts.split('/')[1]}/{file}"
    hub = urlencode({"repo": repository(), "branch": branch, "urlpath": opened}, safe="/:")
    solved = f"book/launch/solutions/{page}.ipynb"
    opened_on = {
        "Colab": f"https://colab.research.google.com/github/{parts}/blob/{branch}/{file}",
        "Binder": f"https://mybinder.org/v2/gh/{parts}/{branch}?urlpath=lab/tree/{file}",
        "Kaggle": f"https://kaggle.com/kernels/welcome?src={raw}",
        "Codespaces": f"https://codespaces.new/{parts}",
        "JupyterHub": f"https://nbgitpuller.readthedocs.io/en/latest/link.html?{hub}",
        "Download": f"{site()}launch/{page}.ipynb",
    }
    return opened_on | ({"Solutions": f"{repository()}/blob/{branch}/{solved}"} if (ROOT / solved).exists() else {})


def derive(app, config) -> None:
    """Set what follows from the repository's address, and that the search shows text before names of the code."""
    config.project = configuration()["title"]
    config.html_search_scorer = str(Path(__file__).with_name("templates") / "scorer.js")
    config.html_baseurl = config.ogp_site_url = site()
    config.notfound_urls_prefix = path = urlsplit(site()).path
    config.notfound_context = {"title": "No such page", "body": template("not_found", path=path)}


def letter_years(app) -> None:
    """Let the citations tell works of the same authors and year apart."""
    years_apart(app.env.get_domain("cite").bibdata.data.entries.values())


def years_apart(entries: Iterable[Any]) -> None:
    """Put letters behind the years of works whose citations would read alike, in the order of their titles.

    Args:
        entries: Those of a bibliography that pybtex has read.
    """
    alike = defaultdict(list)
    for entry in entries:
        names = [" ".join(person.last_names) for person in entry.persons.get("author", ())]
        year = entry.fields.get("year", "")
        if year[-1:].isdigit():  # those of an earlier build in this process have their letters
            shown = (names[0], "et al.") if len(names) > 2 else tuple(names)
            alike[shown, year].append(entry)
    for (_, year), group in alike.items():
        for letter, entry in zip(ascii_lowercase, sorted(group, key=lambda one: one.fields["title"]), strict=False):
            entry.fields["year"] = year + (letter if len(group) > 1 else "")


def finish(app, page: str, _template: str, context: dict, doctree) -> None:
    """Complete a page: how to cite a chapter, each id once, no list role where no items are, nothing of Thebe."""
    if doctree is not None:
        context["body"] = mended(context["body"])
        if Path(page).name[:2].isdigit():
            context["body"] += template("cite", entry=bibtex(page, context["title"].split(". ", 1)[-1]))
    # Another host would serve Thebe's scripts, and nothing here uses them.
    scripts = context["script_files"]
    context["script_files"] = [one for one in scripts if "thebe" not in f"{one.filename} {one.attributes}".lower()]
    for group in context.get("header_buttons", []):
        if group.get("label") == "launch-buttons":
            group["buttons"] = [_button(service, url) for service, url in launch(Path(page).name).items()]
        elif group.get("label") == "download-buttons":
            group["buttons"] = [one for one in group["buttons"] if not one.get("url", "").endswith(".ipynb")]


def _button(service: str, url: str) -> dict:
    return {"type": "link", "text": service, "tooltip": f"Open on {service}", "url": url, "icon": "fas fa-rocket"}


def mended(body: str) -> str:
    """Return a page's body with each id once, numbers that keep their spread, and pictures that load when seen.

    No role of a list stands where no items are: citations, as docutils writes them, are none.
    """
    body = ids_apart(body).replace('<div role="list" class="citation-list">', "<div>")
    first, picture, rest = re.sub(r"(?<=\d) ± (?=\d)", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}", body).partition("<img ")
    return first + picture + rest.replace("<img ", '<img loading="lazy" ')


def ids_apart(body: str) -> str:
    """Number the ids that sphinx-exercise writes alike for all exercises, and for all solutions, of a page."""
    numbers = {"exercise": count(1), "solution": count(1)}
    alike = r'(?<= id=")(exercise|solution)-content(?=")'
    return re.sub(alike, lambda found: f"{found[0]}-{next(numbers[found[1]])}", body)


def complete(app, exception) -> None:
    """Add what is no page: a map of the site, a front door that can be shared, and a 404 page for any prefix."""
    if exception or app.builder.format != "html":
        return
    out, title = Path(app.outdir), configuration()["title"]
    names = sorted(path.relative_to(out).as_posix() for path in (out / "book").glob("*.html"))
    (out / "sitemap.xml").write_text(template("sitemap", addresses=[site() + name for name in names]), encoding="utf-8")
    (out / "robots.txt").write_text(f"User-agent: *\nAllow: /\nSitemap: {site()}sitemap.xml\n", encoding="utf-8")
    (out / "index.html").write_text(template("index", title=title, site=site()), encoding="utf-8")
    for path in (*out.glob("*.html"), *out.glob("book/*.html")):
        path.write_text(lightened(path.read_text(encoding="utf-8")), encoding="utf-8")
    missing = out / "404.html"
    if missing.exists():
        missing.write_text(anywhere(missing.read_text(encoding="utf-8")), encoding="utf-8")


def lightened(page: str) -> str:
    """Return a page whose icons come from fonts alone, not from a large script too, its sidebar a landmark."""
    page = re.sub(r'\s*<script src="[^"]*/fontawesome\.js[^"]*"></script>', "", page)
    sidebar = 'class="bd-sidebar-primary bd-sidebar"'  # or the logo stands outside of every landmark
    return page.replace(f"{sidebar}>", f'{sidebar} role="navigation" aria-label="Book">')


def anywhere(page: str) -> str:
    """Return a 404 page whose links start at the site's root, wherever that is: a script finds it in the address."""
    return page.replace(f'"{urlsplit(site()).path}', '"').replace("<head>", f"<head>\n{template('base')}", 1)


def setup(app) -> dict:
    """Register with Sphinx."""
    app.connect("config-inited", derive)
    app.connect("builder-inited", letter_years, priority=900)  # after the bibliography is read
    app.connect("build-finished", complete)
    app.connect("html-page-context", finish, priority=900)  # after those that add scripts
    return {"parallel_read_safe": True, "parallel_write_safe": True}
