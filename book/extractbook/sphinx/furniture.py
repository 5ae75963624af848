"""What surrounds the pages, as a Sphinx extension: their address, how to cite them, what a missing page says.

The repository's public address is given in _config.yml alone; all others follow from it.
"""

import re
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from itertools import count
from pathlib import Path
from string import ascii_lowercase
from typing import Any
from urllib.parse import urlencode, urlsplit

import yaml

from extractbook.sphinx import template

ROOT = Path(__file__).resolve().parents[3]


@cache
def configuration(name: str = "_config.yml") -> dict:
    """Return the contents of _config.yml, or of another file next to it, which nobody may change."""
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def repository() -> str:
    """Return the repository's public address, for example ``https://github.com/owner/name``."""
    return configuration()["repository"]["url"]


def site() -> str:
    """Return the address at which GitHub Pages publishes the repository's pages."""
    owner, name = urlsplit(repository()).path.strip("/").split("/")
    return f"https://{owner.lower()}.github.io/{name}/"


def commit() -> str:
    """Return the commit that the book is at, or its branch if it is not in a clone."""
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() or configuration()["repository"]["branch"]


def setup_cell(commit: str = "main") -> str:
    """Return the first cell of a notebook: if the package is missing, it installs it, as it is at a commit.

    It needs no clone and no git, keeps the installed torch, torchvision and numpy, and if nothing can be fetched, says
    so in a sentence and stops. A mere folder with the package's name, such as a clone on the path, has no origin and
    does not count as the package.
    """
    return template("setup_cell", repository=repository(), commit=commit)


def bibtex(page: str, title: str) -> str:
    """Return the BibTeX entry of a page, named for example ``book/05_knockoff``, from CITATION.cff."""
    facts = {"cited": configuration("CITATION.cff"), "year": configuration()["copyright"], "site": site()}
    return template("bibtex", page=page, title=title, **facts)


def launch(page: str) -> dict[str, str]:
    """Return where a page's notebook opens, by the name of the service; for a JupyterHub, where its link is made."""
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
    """Set what follows from the repository's address, and make the search show text before names from the code."""
    config.project = configuration()["title"]
    config.html_search_scorer = str(Path(__file__).with_name("templates") / "scorer.js")
    config.html_baseurl = config.ogp_site_url = site()
    config.notfound_urls_prefix = path = urlsplit(site()).path
    config.notfound_context = {"title": "No such page", "body": template("not_found", path=path)}


def letter_years(app) -> None:
    """Distinguish citations of works by the same authors from the same year."""
    years_apart(app.env.get_domain("cite").bibdata.data.entries.values())


def years_apart(entries: Iterable[Any]) -> None:
    """Append letters to the years of works whose citations would look the same, in the order of their titles.

    Args:
        entries: The entries of a bibliography that pybtex has read.
    """
    alike = defaultdict(list)
    for entry in entries:
        names = [" ".join(person.last_names) for person in entry.persons.get("author", ())]
        year = entry.fields.get("year", "")
        if year[-1:].isdigit():  # entries of an earlier build in this process already have letters
            shown = (names[0], "et al.") if len(names) > 2 else tuple(names)
            alike[shown, year].append(entry)
    for (_, year), group in alike.items():
        for letter, entry in zip(ascii_lowercase, sorted(group, key=lambda one: one.fields["title"]), strict=False):
            entry.fields["year"] = year + (letter if len(group) > 1 else "")


def finish(app, page: str, _template: str, context: dict, doctree) -> None:
    """Complete a page: how to cite a chapter, unique ids, no list role without items, and no Thebe scripts."""
    if doctree is not None:
        context["body"] = mended(context["body"])
        if Path(page).name[:2].isdigit():
            context["body"] += template("cite", entry=bibtex(page, context["title"].split(". ", 1)[-1]))
    # Thebe's scripts would come from another host, and nothing here uses them.
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
    """Return a page's body with unique ids, numbers kept together with their spread, and lazily loaded pictures.

    The list role is removed where there are no items: citations, as docutils writes them, are not list items.
    """
    body = ids_apart(body).replace('<div role="list" class="citation-list">', "<div>")
    first, picture, rest = re.sub(r"(?<=\d) ± (?=\d)", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}", body).partition("<img ")
    return first + picture + rest.replace("<img ", '<img loading="lazy" ')


def ids_apart(body: str) -> str:
    """Number the ids that sphinx-exercise repeats for all exercises, and for all solutions, of a page."""
    numbers = {"exercise": count(1), "solution": count(1)}
    alike = r'(?<= id=")(exercise|solution)-content(?=")'
    return re.sub(alike, lambda found: f"{found[0]}-{next(numbers[found[1]])}", body)


def complete(app, exception) -> None:
    """Add what is not a page of the book: a site map, a front page that can be shared, a 404 page for any prefix."""
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
    """Return a page with icons from fonts alone, without the large script, and with its sidebar as a landmark."""
    page = re.sub(r'\s*<script src="[^"]*/fontawesome\.js[^"]*"></script>', "", page)
    sidebar = 'class="bd-sidebar-primary bd-sidebar"'  # otherwise the logo is outside every landmark
    return page.replace(f"{sidebar}>", f'{sidebar} role="navigation" aria-label="Book">')


def anywhere(page: str) -> str:
    """Return a 404 page with links from the site's root, wherever that is: a script finds it in the address."""
    return page.replace(f'"{urlsplit(site()).path}', '"').replace("<head>", f"<head>\n{template('base')}", 1)


def setup(app) -> dict:
    """Register with Sphinx."""
    app.connect("config-inited", derive)
    app.connect("builder-inited", letter_years, priority=900)  # after the bibliography is read
    app.connect("build-finished", complete)
    app.connect("html-page-context", finish, priority=900)  # after the extensions that add scripts
    return {"parallel_read_safe": True, "parallel_write_safe": True}
