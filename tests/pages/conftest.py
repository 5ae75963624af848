"""A browser that reaches the built pages and no other host."""

import pytest

from extractbook.build import pages as build
from extractbook.build.pdf import PATIENCE, answer, browser
from extractbook.sphinx import furniture


def only_the_book(context) -> list[str]:
    """Let a browser's context see the built pages and nothing else of the world; what is not there gets the 404 page.

    Returns:
        The addresses on other hosts that the context asks for, which grow as it is used.
    """
    refused = []

    def respond(route):
        asked = route.request.url.partition("#")[0].partition("?")[0]
        if not asked.startswith(furniture.site()):
            refused.append(asked)
        elif not (build.PAGES / asked.removeprefix(furniture.site())).is_file():
            return route.fulfill(status=404, path=build.PAGES / "404.html")
        return answer(route)

    context.set_default_timeout(PATIENCE)
    context.route("**/*", respond)
    return refused


@pytest.fixture
def serve():
    return only_the_book


@pytest.fixture(scope="session")
def chromium():
    with browser() as running:
        yield running


@pytest.fixture
def open_page(chromium):
    """A function that opens a page of the book; what the page logged and asked for is looked at when the test ends."""
    contexts, problems = [], []

    def watch(page):
        page.on("console", lambda message: message.type == "error" and problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))

    def open_page(path, *, dark=False, width=1280, height=900, **options):
        scheme = "dark" if dark else "light"
        context = chromium.new_context(
            color_scheme=scheme, reduced_motion="reduce", viewport={"width": width, "height": height}, **options
        )
        contexts.append((context, only_the_book(context)))
        context.add_init_script(f"localStorage.setItem('mode', '{scheme}'); localStorage.setItem('theme', '{scheme}')")
        page = context.new_page()
        watch(page)
        page.goto(furniture.site() + path, wait_until="load")
        page.wait_for_load_state("networkidle")
        return page

    yield open_page
    for context, refused in contexts:
        problems += [f"asked another host: {address}" for address in refused]
        context.close()
    assert problems == []
