"""A browser that reaches the built pages and no other host."""

from urllib.parse import urlsplit

import pytest

from extractbook.build import pages as build
from extractbook.build.browser import PATIENCE, browser, served
from extractbook.sphinx import furniture


@pytest.fixture(scope="session")
def chromium():
    with browser() as running:
        yield running


@pytest.fixture(scope="session")
def site():
    """The address of the pages, below the path that they have on the web."""
    with served(build.PAGES, prefix=urlsplit(furniture.site()).path) as address:
        yield address


@pytest.fixture
def open_page(chromium, site):
    """A function that opens a page of the book; what the page logged and asked for is looked at when the test ends."""
    contexts, problems = [], []

    def watch(page):
        page.on("console", lambda message: message.type == "error" and problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))

    def route(route):
        if route.request.url.startswith(site):
            return route.continue_()
        problems.append(f"asked another host: {route.request.url}")
        return route.abort()

    def open_page(path, *, dark=False, width=1280, height=900, **options):
        scheme = "dark" if dark else "light"
        context = chromium.new_context(
            color_scheme=scheme, reduced_motion="reduce", viewport={"width": width, "height": height}, **options
        )
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        context.route("**/*", route)
        context.add_init_script(f"localStorage.setItem('mode', '{scheme}'); localStorage.setItem('theme', '{scheme}')")
        page = context.new_page()
        watch(page)
        page.goto(site + path, wait_until="load")
        page.wait_for_load_state("networkidle")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []
