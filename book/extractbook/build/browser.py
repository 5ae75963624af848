"""A browser for the built pages: what `make check-pages` looks at them with and `make pdf` prints them with."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


PATIENCE = 300_000
"""How long a page may take before it counts as broken, in milliseconds: busy machines are slow."""


@contextmanager
def browser() -> Iterator[Browser]:
    """Give a headless chromium; pages of its contexts should wait up to `PATIENCE`.

    Raises:
        FileNotFoundError: There is none on this machine.
    """
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        raise FileNotFoundError(f"no {' or '.join(NAMES)} here: install one, as with apt-get install chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=list(QUIET))
        try:
            yield running
        finally:
            running.close()


class Pages(SimpleHTTPRequestHandler):
    """Serves a folder below a prefix, and its 404.html for what is not there, as GitHub Pages does."""

    prefix = "/"

    def translate_path(self, path: str) -> str:
        return super().translate_path("/" + path.removeprefix(self.prefix))

    def send_error(self, code, message=None, explain=None):
        page = Path(self.directory, "404.html")
        if code != 404 or not page.exists():
            return super().send_error(code, message, explain)
        body = page.read_bytes()
        self.send_response(404)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


@contextmanager
def served(folder: Path, *, prefix: str = "/") -> Iterator[str]:
    """Serve `folder` on a free port of this machine and give its address, which ends in `prefix`."""
    handler = partial(type("Prefixed", (Pages,), {"prefix": prefix}), directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}{prefix}"
        finally:
            server.shutdown()
