"""Bad inputs by the thousand: a refusal in words, never a traceback, and nothing charged for a refused query.

Each kind runs quickly among the other tests, and 5,000 times in the slow ones.
"""

import io
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from linear_victim import linear_victim
from PIL import Image

import extractlib as xl
from extractbook import exercises
from extractlib.api.service import PredictionAPI
from extractlib.data import drawn
from extractlib.data.images import ImageSet
from extractlib.errors import InputError
from extractlib.models import training
from extractlib.store import Store

QUICK = settings(max_examples=60, suppress_health_check=[*HealthCheck])
MANY = settings(max_examples=5_000, suppress_health_check=[*HealthCheck])


def in_words(error: Exception) -> bool:
    """Say whether an error is a refusal that a reader can use: one line, of no more than a screen."""
    return isinstance(error, InputError) and "\n" not in str(error) and 0 < len(str(error)) < 2_000


# -- the command line ------------------------------------------------------------

ODD = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30),
    st.sampled_from(["-1", "0", "1e9", "nan", "inf", "9" * 400, "١٢", "1_000", " 5", "", "..", "/", "~", "/dev/null"]),
    st.sampled_from(["folder:", "folder:/", "folder:/dev", "folder:ä", "/proc/self/mem", "top-3", "top-0"]),
    st.sampled_from(["signs", "atlas", "retina", "noise", "signs/shifted", "atlas/3", "cifar10", "smoke", "C1", "csv"]),
    st.integers().map(str),
    st.floats().map(str),
)
COMMANDS = {
    ("attack",): "task pool victim network answers budget reward surrogate seed size group ground most-pixels device",
    ("data", "parts"): "seed group ground most-pixels",
    ("data", "get"): "data from",
    ("keys", "add"): "database",
    ("keys", "list"): "database",
    (
        "run",
        "reproduction",
    ): "scale task pool data budget granularity network seeds part device group",
    ("run",): "scale task pool",
    ("results", "--plan"): "scale seeds first-seed part jobs table rate data",
    ("ledger",): "scale edition claim results",
    ("verify",): "scale turn jobs",
    ("challenge", "new"): "teams deadline title budget answers submissions classes database",
}
FLAGS = ("--drop-copies", "--skip-bad", "--scratch", "--help", "--version", "--deciding", "--all")


@st.composite
def lines(draw) -> list[str]:
    """A command with options of its own, and values of any kind."""
    command = draw(st.sampled_from(sorted(COMMANDS)))
    names = draw(st.lists(st.sampled_from(COMMANDS[command].split()), max_size=5, unique=True))
    words = [*command, *(word for name in names for word in (f"--{name}", draw(ODD)))]
    words += draw(st.lists(st.one_of(ODD, st.sampled_from(FLAGS)), max_size=2))
    return [*words, "--results", "nowhere"] if command == ("verify",) else words


@pytest.fixture
def idle(monkeypatch, tmp_path):
    """Nothing is drawn or trained: what an input leads to before that is what is looked at."""

    def stop(*arguments, **options):
        raise InputError("stopped before any work")

    monkeypatch.setattr(drawn, "draw", stop)
    monkeypatch.setattr(training, "fit", stop)
    monkeypatch.setenv("EXTRACTLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EXTRACTLIB_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


def give(command, words: list[str]) -> None:
    status, printed, errors = command(*words)
    assert status in (0, 2), (words, status)
    assert "Traceback" not in printed + errors, (words, errors)
    assert status == 0 or errors.strip() or printed.strip(), words


@QUICK
@given(words=lines())
def test_no_words_end_in_a_traceback(idle, command, words):
    give(command, words)


@pytest.mark.slow
@MANY
@given(words=lines())
def test_five_thousand_lines_of_words(idle, command, words):
    give(command, words)


# -- files -------------------------------------------------------------------------


def picture(kind: str, seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, kind)
    return written.getvalue()


@st.composite
def contents(draw) -> bytes:
    """Bytes of any kind, or those of a picture with a few of them changed or cut."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=200))
    found = bytearray(
        picture(draw(st.sampled_from(["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP"])), draw(st.integers(0, 9)))
    )
    for _ in range(draw(st.integers(0, 4))):
        found[draw(st.integers(0, len(found) - 1))] = draw(st.integers(0, 255))
    return bytes(found[: draw(st.integers(0, len(found)))]) if draw(st.booleans()) else bytes(found)


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 200
)


def read(files: list[tuple[str, str, bytes]], skip_bad: bool) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder) / "pets"
        for number, (kind, name, content) in enumerate(files):
            place = root / kind / f"{number}{name}"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        root.mkdir(exist_ok=True)
        try:
            reading = xl.data.pixels.Reading(skip_bad=skip_bad)
            parts = xl.load(root, store=Store(Path(folder) / "store"), image_size=8, reading=reading)
            images = parts["test"].images
        except InputError as error:
            assert in_words(error), error
        else:
            assert images.dtype == torch.uint8 and images.shape[1:] == (3, 8, 8)


FILES = st.lists(st.tuples(st.sampled_from(["cats", "dogs", "._x", "ä"]), NAMES, contents()), max_size=12)


@pytest.mark.filterwarnings("ignore")
@QUICK
@given(files=FILES, skip_bad=st.booleans())
def test_no_files_end_in_a_traceback(files, skip_bad):
    read(files, skip_bad)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@MANY
@given(files=FILES, skip_bad=st.booleans())
def test_five_thousand_folders(files, skip_bad):
    read(files, skip_bad)


# -- the API -----------------------------------------------------------------------

SHAPES = st.lists(st.integers(0, 6), max_size=5)
TENSORS = st.one_of(
    st.builds(
        lambda shape, kind: torch.zeros(shape, dtype=kind),
        SHAPES,
        st.sampled_from([torch.uint8, torch.float32, torch.int64, torch.bool, torch.complex64, torch.float16]),
    ),
    st.builds(lambda n: torch.zeros(n, 3, 4, 4, dtype=torch.uint8), st.integers(0, 12)),
    st.builds(lambda n: torch.zeros(n, 3, 4, 4, dtype=torch.uint8).to_sparse(), st.integers(0, 2)),
    st.builds(lambda n: torch.zeros(n, 3, 4, 4, dtype=torch.uint8, device="meta"), st.integers(0, 2)),
    st.builds(
        lambda number: (None, [], "x", 3, np.zeros((1, 3, 4, 4), dtype=np.uint8), {"a": 1})[number], st.integers(0, 5)
    ),
)
REQUEST = st.one_of(st.none(), st.text(max_size=9), st.integers(), st.binary(max_size=3))


def ask(images: object, client: object, request: object) -> None:
    api = PredictionAPI(linear_victim(), budget=8)
    try:
        answers = api.query(images, client=client, request=request)
    except InputError as error:
        assert in_words(error), error
        assert api.usage(client if isinstance(client, str) and client else "nobody").queries == 0
    else:
        assert len(answers) == len(images) == api.usage(client).queries


@QUICK
@given(images=TENSORS, client=REQUEST, request=REQUEST)
def test_no_query_ends_in_a_traceback_or_is_charged_for_nothing(images, client, request):
    ask(images, client, request)


@pytest.mark.slow
@MANY
@given(images=TENSORS, client=REQUEST, request=REQUEST)
def test_five_thousand_queries(images, client, request):
    ask(images, client, request)


# -- check ---------------------------------------------------------------------------


def nested(depth: int) -> list:
    made: list = []
    for _ in range(depth):
        made = [made]
    return made


class Raising:
    def __getattribute__(self, name):
        raise ZeroDivisionError(name)


ANSWERS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=30),
    st.binary(max_size=9),
    st.lists(st.one_of(st.integers(), st.floats(), st.text(max_size=3), st.none()), max_size=5),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=3),
    st.builds(nested, st.sampled_from([1, 50, 100_000])),
    st.builds(lambda shape: torch.full(shape, torch.nan), SHAPES),
    st.builds(lambda shape: np.zeros(shape, dtype=object), SHAPES),
    st.builds(
        lambda value: lambda *arguments, **options: value, st.one_of(st.none(), st.floats(), st.text(max_size=3))
    ),
    st.builds(
        lambda number: (int, Raising, NotImplemented, ..., 1j, range(9), {1, 2}, object())[number], st.integers(0, 7)
    ),
)


def answer(exercise: str, value: object) -> None:
    try:
        verdict = exercises.check(exercise, value)
    except InputError as error:
        assert in_words(error), error
    else:
        assert 0 <= verdict.share <= 1 and (verdict.share == 1 or verdict.reason)


# Those whose check runs an attack of its own take seconds.
CHECKED = sorted(exercise.id for exercise in exercises.known() if exercise.checked)


@QUICK
@given(exercise=st.sampled_from(CHECKED), value=ANSWERS)
def test_no_answer_ends_in_a_traceback(exercise, value):
    answer(exercise, value)


@pytest.mark.slow
@MANY
@given(exercise=st.sampled_from(CHECKED), value=ANSWERS)
def test_five_thousand_answers(exercise, value):
    answer(exercise, value)


@pytest.mark.parametrize("exercise", CHECKED)
def test_an_answer_that_cannot_even_be_looked_at(exercise):
    answer(exercise, Raising())  # hypothesis could not print it


def test_what_counts_as_in_words():
    assert in_words(InputError("budget is 0: ask at least 1"))
    assert not in_words(ValueError("budget is 0: ask at least 1"))


def test_an_image_set_of_nonsense_is_refused():
    with pytest.raises(InputError):
        ImageSet("x", torch.zeros(2, 2), None, (), "f")
