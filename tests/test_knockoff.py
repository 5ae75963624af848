"""Knockoff nets: the draw, the collection that survives any kill, the surrogate."""

import os
import random
import signal
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from linear_victim import linear_victim, noise

from extractlib.api.meter import Meter
from extractlib.api.service import BudgetExceeded, PredictionAPI
from extractlib.attacks.knockoff import Knockoff
from extractlib.attacks.transfer import load
from extractlib.data.images import ImageSet
from extractlib.errors import InputError
from extractlib.models.training import Recipe, predict

POOL = ImageSet("pool", noise(60), None, (), "pool of 60")


# -- the draw ----------------------------------------------------------------


def test_the_draw_is_without_replacement_and_follows_its_seed():
    attack = Knockoff(budget=40, seed=3)
    indices = attack.indices(60)
    assert indices.dtype == torch.int64 and len(set(indices.tolist())) == 40
    assert 0 <= int(indices.min()) <= int(indices.max()) < 60
    assert torch.equal(indices, attack.indices(60))
    assert not torch.equal(indices, Knockoff(budget=40, seed=4).indices(60))


def test_the_whole_pool_is_a_permutation():
    assert sorted(Knockoff(budget=60).indices(60).tolist()) == list(range(60))


@pytest.mark.parametrize("first", [1, 3])
def test_the_first_queries_are_a_uniform_draw_too(first):
    """Over 3,000 seeds each of 12 images is among the first b with chance b / 12: chi-square below its 99.9% bound."""
    counts = np.zeros(12)
    for seed in range(3_000):
        counts[Knockoff(budget=6, seed=seed).indices(12)[:first].numpy()] += 1
    expected = 3_000 * first / 12
    assert ((counts - expected) ** 2 / expected).sum() < 31.3


def test_the_draw_from_four_thousand_million_images_needs_no_memory_for_them():
    indices = Knockoff(budget=1_000).indices(2**32)
    assert len(set(indices.tolist())) == 1_000
    assert 2**32 * 0.45 < indices.double().mean() < 2**32 * 0.55


# -- bad input ---------------------------------------------------------------


@pytest.mark.parametrize("budget", [0, -1, True, 1.5, "10", None])
def test_bad_budgets_are_refused(budget):
    with pytest.raises(InputError, match=f"^budget is {budget!r}: a whole number from 1 is wanted$"):
        Knockoff(budget=budget)


def test_other_bad_settings_are_refused(tmp_path):
    with pytest.raises(InputError, match="^chunk is 0: a whole number from 1 is wanted$"):
        Knockoff(budget=1, chunk=0)
    for seed in (-1, True, 0.5):
        with pytest.raises(InputError, match=f"^seed is {seed}: a whole number from 0 is wanted$"):
            Knockoff(budget=1, seed=seed)
    api = PredictionAPI(linear_victim())
    with pytest.raises(InputError, match="^budget is 61 and the pool holds 60 images: ask at most that many$"):
        Knockoff(budget=61).collect(api, POOL, tmp_path / "t.bin")
    assert api.usage("attacker").queries == 0
    assert not list(tmp_path.iterdir())


# -- collecting --------------------------------------------------------------


@pytest.mark.parametrize("text", ["full", "top-3", "rounded-2", "label"])
def test_collect_asks_each_index_once_and_keeps_the_answers(tmp_path, text):
    victim = linear_victim()
    api = PredictionAPI(victim, granularity=text, budget=50)
    attack = Knockoff(budget=50, seed=2, chunk=16)
    transfer = attack.collect(api, POOL, tmp_path / "t.bin")
    assert victim.calls == [16, 16, 16, 2]
    assert torch.equal(transfer.indices, attack.indices(60))
    expected = PredictionAPI(linear_victim(), granularity=text).query(POOL.images[transfer.indices])
    assert torch.equal(transfer.answers.labels, expected.labels)
    torch.testing.assert_close(transfer.answers.targets(10), expected.targets(10), rtol=0, atol=1e-3)
    assert api.usage("attacker").queries == len(transfer) == 50


def test_collecting_again_asks_nothing(tmp_path):
    victim = linear_victim()
    api = PredictionAPI(victim, budget=50)
    attack = Knockoff(budget=50, chunk=16)
    first = attack.collect(api, POOL, tmp_path / "t.bin")
    again = attack.collect(api, POOL, tmp_path / "t.bin")
    assert victim.calls == [16, 16, 16, 2]
    assert torch.equal(first.answers.probabilities, again.answers.probabilities)
    # A lost file costs nothing either: the meter still knows every answer.
    whole = (tmp_path / "t.bin").read_bytes()
    (tmp_path / "t.bin").unlink()
    attack.collect(api, POOL, tmp_path / "t.bin")
    assert (tmp_path / "t.bin").read_bytes() == whole
    assert api.usage("attacker").queries == 50


def test_an_api_that_allows_less_stops_the_collection_which_a_larger_budget_resumes(tmp_path):
    api = PredictionAPI(linear_victim(), budget=40)
    attack = Knockoff(budget=50, chunk=16)
    with pytest.raises(BudgetExceeded, match="client 'attacker' asks 16 queries and 8 of 40 are left"):
        attack.collect(api, POOL, tmp_path / "t.bin")
    assert api.usage("attacker").queries == len(load(tmp_path / "t.bin", partial=True)) == 32
    api.register("attacker", budget=50)
    assert len(attack.collect(api, POOL, tmp_path / "t.bin")) == api.usage("attacker").queries == 50


def test_the_file_of_another_api_is_refused(tmp_path):
    attack = Knockoff(budget=20, chunk=8)
    attack.collect(PredictionAPI(linear_victim()), POOL, tmp_path / "t.bin")
    other = PredictionAPI(linear_victim(seed=1))
    with pytest.raises(InputError, match="t.bin is the transfer file of another api, '[0-9a-f]{40}' and not"):
        attack.collect(other, POOL, tmp_path / "t.bin")
    assert other.usage("attacker").queries == 0


# -- killed anywhere ---------------------------------------------------------

ATTACK = Knockoff(budget=50, seed=1, chunk=16)
VICTIM = linear_victim()


def collect(folder: Path) -> None:
    meter = Meter(folder / "meter.db")
    api = PredictionAPI(VICTIM, granularity="top-3", budget=50, price=1.0, meter=meter)
    ATTACK.collect(api, POOL, folder / "t.bin")
    meter.close()


@dataclass
class Clock:
    """Counts the write boundaries of a process, and kills it at one of them.

    Boundaries: before each SQL statement of the meter, before and after a charge, in the middle of each write to the
    transfer file (every write is cut in halves), and before each sync.
    """

    kill_at: int | None = None
    events: list[str] = field(default_factory=list)

    def tick(self, event: str) -> None:
        self.events.append(event)
        if len(self.events) - 1 == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        write, sync, charge, connect = os.write, os.fsync, Meter.charge, sqlite3.connect

        def half_write(descriptor, data):
            written = write(descriptor, data[: max(1, len(data) // 2)])
            self.tick("amid an append")
            return written

        def late_sync(descriptor):
            self.tick("before a sync")
            sync(descriptor)

        def framed_charge(meter, *arguments):
            self.tick("before a charge")
            answer = charge(meter, *arguments)
            self.tick("after a charge")
            return answer

        def traced_connection(*arguments, **options):
            connection = connect(*arguments, **options)
            connection.set_trace_callback(lambda statement: self.tick(statement.split()[0]))
            return connection

        patch.setattr(os, "write", half_write)
        patch.setattr(os, "fsync", late_sync)
        patch.setattr(Meter, "charge", framed_charge)
        patch.setattr(sqlite3, "connect", traced_connection)


def killed_collection(folder: Path, *, at: int) -> None:
    """Collect in a process of its own that is killed, by SIGKILL, at one of its boundaries."""
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(60)  # a hang ends by another signal
            Clock(kill_at=at).install(pytest.MonkeyPatch())
            collect(folder)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def charged(folder: Path) -> tuple[int, int, float]:
    """Return the meter's requests, queries and cost, as its file has them."""
    connection = sqlite3.connect(folder / "meter.db")
    requests, queries, cost = connection.execute("SELECT count(*), sum(queries), sum(cost) FROM requests").fetchone()
    accounts = connection.execute("SELECT sum(queries), sum(cost) FROM accounts").fetchone()
    connection.close()
    assert accounts == (queries, cost)
    return requests, queries, cost


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> tuple[bytes, list[str]]:
    """The transfer file of a collection that nothing interrupts, and the boundaries it passes."""
    folder = tmp_path_factory.mktemp("unbroken")
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        clock.install(patch)
        collect(folder)
    assert charged(folder) == (4, 50, 50.0)
    return (folder / "t.bin").read_bytes(), clock.events


def ends_as_unbroken(folder: Path, whole: bytes) -> bool:
    collect(folder)
    return (folder / "t.bin").read_bytes() == whole and charged(folder) == (4, 50, 50.0)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    "event",
    ["CREATE", "before a charge", "BEGIN", "INSERT", "COMMIT", "after a charge", "amid an append", "before a sync"],
)
def test_killed_at_a_write_boundary_it_ends_as_unbroken(tmp_path, unbroken, event, share):
    """`share`: how far along the run, from the first such boundary to the last."""
    whole, events = unbroken
    places = [number for number, name in enumerate(events) if name == event]
    killed_collection(tmp_path, at=places[round(share * (len(places) - 1))])
    assert ends_as_unbroken(tmp_path, whole)


@pytest.mark.parametrize("seed", range(20))
def test_killed_at_random_points_it_ends_as_unbroken(tmp_path, unbroken, seed):
    """Killed once anywhere in the run, and then again while the meter is opened anew."""
    whole, events = unbroken
    generator = random.Random(seed)
    killed_collection(tmp_path, at=generator.randrange(len(events)))
    killed_collection(tmp_path, at=generator.randrange(4))
    assert ends_as_unbroken(tmp_path, whole)


# -- the surrogate -----------------------------------------------------------

RECIPE = Recipe(epochs=30, learning_rate=0.05, batch_size=25, shift=0, weight_decay=0.0)


def surrogate(transfer, **options):
    settings = {"network": "tiny", "recipe": RECIPE, "classes": 3, "seed": 0}
    return Knockoff(budget=50).train_surrogate(transfer, POOL, **settings | options)


@pytest.fixture(scope="module")
def transfer(tmp_path_factory):
    api = PredictionAPI(linear_victim(3), granularity="top-2")
    return Knockoff(budget=50).collect(api, POOL, tmp_path_factory.mktemp("transfer") / "t.bin")


def test_the_surrogate_learns_the_answers_of_the_queried_images(transfer):
    model = surrogate(transfer)
    predicted = predict(model, POOL.images[transfer.indices]).argmax(1)
    assert float((predicted == transfer.answers.labels).float().mean()) >= 0.9


def test_each_surrogate_is_fresh_and_follows_its_seed(transfer):
    recipe = Recipe(epochs=1, learning_rate=0.1, batch_size=10)
    first, again = (surrogate(transfer, recipe=recipe) for _ in range(2))
    small, other = surrogate(transfer.first(20), recipe=recipe), surrogate(transfer, recipe=recipe, seed=1)
    outputs = [predict(model, POOL.images) for model in (first, again, small, other)]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2]) and not torch.allclose(outputs[0], outputs[3])


def test_another_pool_or_number_of_classes_is_refused(transfer):
    stranger = ImageSet("stranger", noise(60), None, (), "another pool")
    settings = {"network": "tiny", "recipe": RECIPE, "seed": 0}
    with pytest.raises(InputError, match="^the transfer set's queries are not of stranger: give the pool"):
        Knockoff(budget=50).train_surrogate(transfer, stranger, classes=3, **settings)
    with pytest.raises(InputError, match="^classes is 4: the transfer set's answers are of 3$"):
        surrogate(transfer, classes=4)
