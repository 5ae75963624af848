"""The scoreboard of a challenge in a real browser: light, dark, on a phone and without JavaScript."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from extractbook.build import pages as build
from extractlib.challenge import board
from extractlib.challenge.scoring import CONSTANT, FREE, Score

ADDRESS = "https://challenge.example.org/"
SCREENSHOTS = build.ROOT / "_build" / "screenshots"
PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "device_scale_factor": 2}
WIDE = {"viewport": {"width": 1280, "height": 900}}
ABOUT = {
    "title": "Steal the secret signs",
    "address": ADDRESS.rstrip("/"),
    "answers": "top-3",
    "deadline": "2026-12-24T18:00:00+00:00",
    "deadline_in_words": "2026-12-24 18:00 UTC",
    "budget": 5_000,
    "submissions_a_day": 3,
    "queries_a_copy": 50,
    "public_images": 1_200,
    "final_images": 2_800,
    "margin": board.margin(1_200),
}


def score(value: float, repeated: float | None = 0.31) -> Score:
    return Score(score=value, recovery=value + 0.01, agreement=value - 0.02, errors_repeated=repeated)


def html(*, over: bool) -> str:
    final = {"final": score(0.7312)} if over else {}
    rows = [
        board.Standing(name="independent control", kind="host", public=score(0.98, 0.2), **final),
        board.Standing(
            rank=1, name="Die Löwen", kind="team", public=score(0.84), queries=5_000, submissions=12, **final
        ),
        board.Standing(name="random Knockoff, 5,000 queries", kind="host", public=score(0.8), **final),
        board.Standing(rank=2, name="W" * 60, kind="team", public=score(0.35), queries=800, submissions=2, **final),
        board.Standing(name=CONSTANT, kind="host", public=score(0.0), **final),
        board.Standing(name=f"{FREE}, secret 2", kind="host", public=score(0.0, None), **final),
        board.Standing(name="<script>alert(1)</script> & co", kind="team", queries=0, submissions=0),
    ]
    return board.to_page(rows, over=over, **ABOUT)


@pytest.fixture
def open_board(chromium):
    """A function that opens the scoreboard; at the end it has asked for nothing but itself and logged nothing."""
    contexts, problems = [], []

    def open_board(*, over: bool = False, dark: bool = False, **options):
        context = chromium.new_context(color_scheme="dark" if dark else "light", **options)
        contexts.append(context)

        def respond(route):
            if route.request.url == ADDRESS:
                return route.fulfill(body=html(over=over), content_type="text/html; charset=utf-8")
            if not route.request.url.endswith("/favicon.ico"):
                problems.append(route.request.url)
            return route.abort()

        context.route("**/*", respond)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.goto(ADDRESS)
        return page

    yield open_board
    for context in contexts:
        context.close()
    assert problems == []


@pytest.mark.parametrize("over", [False, True], ids=["open", "over"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_it_reads_well_and_excludes_nobody(open_board, size, dark, over):
    page = open_board(over=over, dark=dark, **size)
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    assert [f"{finding['id']}: {finding['nodes'][0]['html']}" for finding in found] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= size["viewport"]["width"]
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(20, 24, 30)" if dark else "rgb(255, 255, 255)")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    name = f"scoreboard-{'over' if over else 'open'}-{'dark' if dark else 'light'}-{size['viewport']['width']}.png"
    page.screenshot(path=SCREENSHOTS / name, full_page=True)


def test_it_needs_no_javascript(open_board):
    page = open_board(java_script_enabled=False, **WIDE)
    names = page.locator("tbody th").all_inner_texts()
    assert names[1] == "Die Löwen" and names[-1] == "<script>alert(1)</script> & co"
    assert page.locator("tbody tr").nth(1).locator("td").all_inner_texts() == [
        "1",
        "0.84",
        "0.85",
        "0.82",
        "0.31",
        "5,000",
        "12",
    ]
    assert page.locator("tbody tr").last.locator("td").all_inner_texts() == ["", "–", "–", "–", "–", "0", "0"]


def test_on_a_phone_the_score_is_seen_without_scrolling(open_board):
    box = open_board(**PHONE).locator("td.score").nth(1).bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 360
