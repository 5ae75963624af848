"""The built pages in a real browser that reaches no other host: they work, read well and exclude nobody."""

import gzip
import json
import re

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe

from extractbook.build import pages as build
from extractbook.sphinx import furniture, quiz

PAGES = sorted(path.relative_to(build.PAGES).as_posix() for path in (build.PAGES / "book").glob("*.html"))
REFERENCE = "book/api_defenses.html"
"""The page of the reference whose colors are looked at: they are those of all, and the others have more names."""
CHAPTERS = [page for page in PAGES if re.match(r"book/\d\d_", page)]
WITH_MATHS = [page for page in PAGES if 'class="math' in (build.PAGES / page).read_text(encoding="utf-8")]
SCREENSHOTS = build.ROOT / "_build" / "screenshots"
PHOTOGRAPHED = ("book/index.html", "book/05_knockoff.html", "book/09_detection.html")
PHONE = {"width": 360, "height": 740, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}

# Its preloading asks for a style sheet's imports as if they lay beside the page.
AXE = {"resultTypes": ["violations"], "preload": False}

ALL = [*PAGES, "404.html", "search.html", "genindex.html"]
COLORED = [page for page in ALL if not page.startswith("book/api_") or page == REFERENCE]

each_page = pytest.mark.parametrize("path", ALL)


def findings(page, **options) -> list[str]:
    """Return what the accessibility checker says of a page."""
    options = AXE | options
    return [
        f"{finding['id']}: {node['html'][:160]} {[check['message'] for check in node['any'][:1]]}"
        for finding in Axe().run(page, options=options).response["violations"]
        if finding["impact"] in {"moderate", "serious", "critical"}
        for node in finding["nodes"]
    ]


@each_page
def test_no_finding_of_the_accessibility_checker(open_page, path):
    page = open_page(path)
    assert page.locator("html").get_attribute("data-theme") == "light"
    assert findings(page, rules={"color-contrast": {"enabled": path in COLORED}}) == []


@pytest.mark.parametrize("path", COLORED)
def test_colors_can_be_told_apart_in_the_dark(open_page, path):
    page = open_page(path, dark=True)
    assert page.locator("html").get_attribute("data-theme") == "dark"
    assert findings(page, runOnly=["color-contrast"]) == []


@each_page
def test_phone_does_not_scroll_sideways(open_page, path):
    page = open_page(path, **PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("path", WITH_MATHS)
def test_maths_is_set(open_page, path):
    page = open_page(path)
    page.wait_for_function("document.querySelectorAll('mjx-container').length > 0")
    assert page.locator("mjx-container").count() == page.locator(".math").count()
    assert page.locator("mjx-merror").count() == 0


def test_book_has_maths():
    assert len(WITH_MATHS) > 3


def test_search_finds_a_word(open_page):
    page = open_page("search.html?q=teapot")
    page.wait_for_selector("#search-results li")
    links = page.locator("#search-results li a").evaluate_all("links => links.map(link => link.pathname)")
    assert {link.rsplit("/", 1)[1] for link in links} == {"05_knockoff.html", "09_detection.html"}


def test_search_shows_text_before_names_of_the_code(open_page):
    page = open_page("search.html?q=knockoff")
    page.wait_for_function("document.querySelector('#search-results .search-summary').textContent.includes('found')")
    links = page.locator("#search-results li a").evaluate_all("links => links.map(link => link.pathname)")
    reference = [link.rsplit("/", 1)[1].startswith("api") for link in links]
    assert {True, False} == set(reference) and reference == sorted(reference)


@pytest.mark.parametrize("path", CHAPTERS)
def test_a_chapter_weighs_what_a_phone_can_bear(chromium, serve, path):
    """As gzip sends it, without the pictures below the first screen, which wait."""
    context = chromium.new_context(viewport={"width": 390, "height": 800})
    serve(context)
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url.partition("?")[0]))
    page.goto(furniture.site() + path, wait_until="networkidle")
    files = [build.PAGES / url.removeprefix(furniture.site()).partition("#")[0] for url in asked]
    weight = sum(len(gzip.compress(file.read_bytes())) for file in set(files) if file.is_file())
    assert weight < 1_500_000
    context.close()


def test_without_scripts_the_page_says_what_is_missing(chromium, serve):
    context = chromium.new_context(java_script_enabled=False)
    serve(context)
    page = context.new_page()
    page.goto(furniture.site() + QUIZZES[0])
    forms = page.locator("form.quiz")
    assert forms.count() >= 2
    assert all("Checking needs JavaScript" in form.inner_text() for form in forms.all())
    context.close()


def test_what_is_not_there_is_styled_under_any_prefix(chromium):
    """As on a course's mirror, whose address the book does not know."""
    context, mirror = chromium.new_context(), "https://mirror.example/of/a/course/"

    def respond(route):
        file = build.PAGES / route.request.url.removeprefix(mirror).partition("?")[0]
        found = route.request.url.startswith(mirror) and file.is_file()
        route.fulfill(path=file) if found else route.fulfill(status=404, path=build.PAGES / "404.html")

    context.route("**/*", respond)
    page = context.new_page()
    page.goto(f"{mirror}book/nothing.html")
    assert page.get_by_role("link", name="front page").evaluate("link => link.href") == f"{mirror}book/index.html"
    assert "sans-serif" in page.locator("article h1").last.evaluate("heading => getComputedStyle(heading).fontFamily")
    context.close()


def test_dark_mode_toggles(open_page):
    page = open_page("book/index.html")
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("button.theme-switch-button").first.click()
    while page.locator("html").get_attribute("data-mode") != "dark":
        page.locator("button.theme-switch-button").first.click()
    after = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert before == "rgb(255, 255, 255)" and after != before


def test_what_is_not_there_gets_the_books_own_page(chromium, serve, open_page):
    context = chromium.new_context()
    serve(context)
    response = context.new_page().goto(f"{furniture.site()}book/no-such-page.html")
    assert response.status == 404 and response.body() == (build.PAGES / "404.html").read_bytes()
    context.close()
    page = open_page("404.html")
    page.get_by_role("link", name="front page").click()
    assert page.url == f"{furniture.site()}book/index.html"


QUIZZES = [page for page in CHAPTERS if 'class="quiz"' in (build.PAGES / page).read_text(encoding="utf-8")]
SLIDERS = [page for page in CHAPTERS if 'class="sliders"' in (build.PAGES / page).read_text(encoding="utf-8")]


def test_book_has_questions_and_sliders():
    assert len(QUIZZES) >= 13 and SLIDERS


@pytest.mark.parametrize("path", QUIZZES)
def test_questions_answer_to_the_keyboard(open_page, path):
    page = open_page(path)
    for form in page.locator("form.quiz").all():
        status = form.get_by_role("status")
        form.get_by_role("button").press("Enter")
        assert status.text_content() == "Choose an answer first."
        told = []
        radios = form.get_by_role("radio")
        radios.first.focus()
        page.keyboard.press("Space")
        for number in range(radios.count()):
            if number:
                page.keyboard.press("ArrowDown")
            assert radios.nth(number).is_checked() and status.text_content() == ""
            page.keyboard.press("Enter")  # sends the form, as the button does
            told.append(status.text_content())
        assert len(set(told)) == radios.count()
        assert sorted(text.split(".")[0] for text in told) == ["✓ Right"] + ["✗ Not quite"] * (radios.count() - 1)


@pytest.mark.parametrize("path", QUIZZES)
def test_answers_cannot_be_read_in_the_source(path):
    source = (build.PAGES / path).read_text(encoding="utf-8")
    notebook = nbformat.read(build.SOURCE / path.replace(".html", ".ipynb"), as_version=4)
    for cell in notebook.cells:
        for block in re.findall(r"^```\{quiz\}\n(.*?)^```", cell.source, re.MULTILINE | re.DOTALL):
            for question in quiz.questions(block):
                assert not any(text in source for text in question["feedback"].values())


@pytest.mark.parametrize("path", SLIDERS)
def test_sliders_move(open_page, path):
    page = open_page(path)
    for box in page.locator("fieldset.sliders").all():
        slider, sentence, mark = box.get_by_role("slider"), box.locator("output"), box.locator("circle")
        slider.focus()
        page.keyboard.press("Home")
        first = sentence.text_content(), mark.get_attribute("cx"), slider.get_attribute("aria-valuetext")
        page.keyboard.press("End")
        last = sentence.text_content(), mark.get_attribute("cx"), slider.get_attribute("aria-valuetext")
        assert all(before != after for before, after in zip(first, last, strict=True))
        assert float(first[1]) < float(last[1])
        assert "{" not in first[0] + last[0]
        grid = json.loads(box.locator("script").text_content())
        key = ",".join("0" * len(grid["choices"]))
        assert last[2] == grid["series"][key][-1][2][0]
        line = box.locator("polyline").get_attribute("points")
        box.locator("select").first.select_option(index=1)
        assert box.locator("polyline").get_attribute("points") != line


@pytest.mark.parametrize("path", PHOTOGRAPHED)
@pytest.mark.parametrize("kind", ["light", "dark", "phone"])
def test_photograph(open_page, path, kind):
    page = open_page(path, dark=kind == "dark", **(PHONE if kind == "phone" else {}))
    SCREENSHOTS.mkdir(exist_ok=True)
    file = SCREENSHOTS / f"{path.split('/')[1].removesuffix('.html')}-{kind}.png"
    page.screenshot(path=file, full_page=True)
    assert file.stat().st_size > 50_000
