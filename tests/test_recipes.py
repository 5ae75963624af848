"""CONTRIBUTING's recipes, each tried with a toy from outside the packages; no row becomes stale by any of them.

What a new network, policy and task can do is tested in test_registry.py.
"""

from dataclasses import dataclass

import nbformat
import pytest
import torch
from linear_victim import linear_victim, noise

import extractlib as xl
from extractbook.build import courses, execute
from extractbook.exercises import Exercise
from extractbook.reproduction import Row, freshness, is_current, table_cells
from extractbook.reproduction.freshness import settings_of, versions_of
from extractbook.reproduction.grids import tables_for
from extractbook.reproduction.scales import scale
from extractbook.sphinx import furniture
from extractlib.api.meter import BudgetExceeded
from extractlib.data.images import from_tensor
from extractlib.data.sets import SETS, Provider
from extractlib.defenses.policies import POLICIES, Unchanged
from extractlib.models.networks import NETWORKS, Network


@pytest.fixture(scope="module")
def rows():
    """A row of every cell of the smoke scale, as it would be made now."""
    settings = scale("smoke")
    cells = [cell for table in tables_for(settings) for cell in table_cells(table, settings, seeds=[0])]
    assert len({cell.experiment for cell in cells}) > 4
    return [Row(cell, {}, {"versions": versions_of(cell), "settings": settings_of(cell)}) for cell in cells]


@pytest.fixture(autouse=True)
def nothing_becomes_stale(rows):
    yield
    freshness._settings.cache_clear()  # or what was kept would be compared with itself
    assert [row.cell for row in rows if not is_current(row)] == []


# -- an attack ---------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Brightest(xl.attacks.Knockoff):
    """Asks about the brightest images first."""

    def indices(self, count: int) -> torch.Tensor:
        return torch.arange(count - 1, count - 1 - self.budget, -1)


def by_brightness(count: int):
    images = noise(count)
    return from_tensor(images[images.float().mean((1, 2, 3)).argsort()], torch.arange(count) % 3)


def test_an_attack(tmp_path):
    pool, api = by_brightness(40), xl.PredictionAPI(linear_victim(), budget=10)
    attack = Brightest(budget=10, batch=4)
    surrogate = attack(api, pool, surrogate="tiny", backbone=None, keep=tmp_path / "asked.db", progress=False)
    assert surrogate.predict(pool.images).shape == (40,)
    kept = xl.attacks.transfer.load(tmp_path / "asked.db")
    assert kept.indices.tolist() == list(range(39, 29, -1))
    assert api.usage("attacker").remaining == 0
    with pytest.raises(BudgetExceeded):
        api.query(pool.images[:1], client="attacker")


# -- a policy, a network, a task -----------------------------------------------------


class Means(Network):
    """A linear function of each channel's mean."""

    def __init__(self, *, classes: int):
        super().__init__()
        self.head = torch.nn.Linear(3, classes)

    def features(self, x):
        return x.mean((2, 3))


def toy_task(loader, name, seed):
    parts = ("victim", "detector", "adversary", "validation", "test")
    return {part: from_tensor(noise(6, seed=seed), torch.arange(6) % 2, name=name) for part in parts}


@pytest.mark.parametrize(
    ("registry", "entry"),
    [(POLICIES, lambda secret: Unchanged()), (NETWORKS, Means), (SETS, Provider("task", toy_task))],
    ids=["policy", "network", "task"],
)
def test_what_is_registered(registry, entry, rows):
    registry.register("toy")(entry)
    try:
        assert registry["toy"] is entry
        freshness._settings.cache_clear()
        assert all(map(is_current, rows))
    finally:
        registry.pop("toy")


# -- a chapter, an exercise ----------------------------------------------------------

STATEMENT = """::::{exercise} 20.1 Twice: understand, 5 minutes
:label: exercise-20.1
:nonumber:

What is twice the number?

:::{admonition} Hint
:class: dropdown

Add it to itself.
:::
::::

:::{solution-start} exercise-20.1
:class: dropdown
:::"""
SOLUTION = """number = 21
### BEGIN SOLUTION
double = 2 * number
### END SOLUTION
book.check("20.1", double)"""


@pytest.fixture
def chapter(tmp_path):
    """A chapter of a scale, a cell that uses both packages, and an exercise."""
    new = nbformat.v4
    cells = [
        new.new_markdown_cell("# 20. A toy"),
        new.new_code_cell(furniture.setup_cell(), id="setup", metadata={"tags": ["remove-cell"]}),
        new.new_code_cell('scale = "drawn"', metadata={"tags": ["parameters"]}),
        new.new_code_cell(
            "import extractlib as xl\nfrom extractbook import book\n\nsizes = book.scale(scale)\n"
            'book.say(f"{sizes.name}: {xl.metrics.recovery(0.5, 1.0)}")'
        ),
        new.new_markdown_cell(STATEMENT, metadata={"tags": ["exercise"]}),
        new.new_code_cell(SOLUTION, metadata={"tags": ["solution"]}),
        new.new_markdown_cell(f"Twice is a sum.{courses.SOLUTION_END}", metadata={"tags": ["solution"]}),
    ]
    path = tmp_path / "20_toy.ipynb"
    nbformat.write(new.new_notebook(cells=cells, metadata={"kernelspec": courses.KERNEL}), path)
    return path


def test_a_chapter(chapter):
    text = nbformat.read(chapter, as_version=4)
    text.cells = text.cells[:4]
    nbformat.write(text, chapter)
    executed = execute.run_notebook(chapter, scale="smoke")
    assert executed.cells[-1].outputs[0].data["text/markdown"] == "smoke: 0.5"


def test_an_exercise(chapter):
    exercise = Exercise(
        id="20.1",
        title="Twice",
        kind="understand",
        minutes=5,
        variants={"number": (21, *range(1, 20))},
        right=lambda number: 2 * number,
        slips={"that is the square": lambda number: number**2},
    )
    assert exercise.check(42).right and not exercise.check(43).right
    assert exercise.check(441).reason == "that is the square"
    assert exercise.check(2 * exercise.parameters(7)["number"], seed=7).right
    [task] = courses.tasks(chapter)
    assert (task.id, task.title, task.answer) == ("20.1", "20.1 Twice: understand, 5 minutes", "double")
    assert task.code.startswith(courses.numbers(exercise))
    student, instructor = (courses.launch_notebook(chapter, solved=solved) for solved in (False, True))
    assert "double = None  # your answer" in student.cells[6].source
    assert "double = 2 * number" in instructor.cells[6].source
