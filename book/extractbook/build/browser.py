"""A browser for the built pages: what `make check-pages` looks at them with and `make pdf` prints them with."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Route, sync_playwright

from extractlib.errors import InputError

NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync")
PATIENCE = 300_000
"""How long a page may take before it counts as broken, in milliseconds: busy machines are slow."""


@contextmanager
def browser() -> Iterator[Browser]:
    """Give a headless chromium.

    Raises:
        InputError: There is none on this machine.
    """
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        raise InputError(f"no {' or '.join(NAMES)} here: install one, as with apt-get install chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=list(QUIET))
        try:
            yield running
        finally:
            running.close()


def serve(context: BrowserContext, folder: Path, address: str) -> list[str]:
    """Let a browser's context see the files of `folder` at `address`, and nothing else of the world.

    What is not there gets the folder's 404.html, as on GitHub Pages, and pages may take up to `PATIENCE`.

    Returns:
        The addresses on other hosts that the context asks for, which grow as it is used.
    """
    refused: list[str] = []

    def answer(route: Route) -> None:
        asked = route.request.url.partition("#")[0].partition("?")[0]
        if not asked.startswith(address):
            refused.append(asked)
            return route.abort()
        path = folder / asked.removeprefix(address)
        if path.is_file():
            return route.fulfill(path=path)
        return route.fulfill(status=404, path=folder / "404.html")

    context.set_default_timeout(PATIENCE)
    context.route("**/*", answer)
    return refused
