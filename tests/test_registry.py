"""Open registries: what anybody adds from outside is used by name like what the package brings."""

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from linear_victim import linear_victim, noise

import extractlib as xl
from extractlib.data.images import from_tensor
from extractlib.data.sets import SETS, Provider
from extractlib.data.sources import Loader, Source
from extractlib.defenses.policies import POLICIES, Unchanged, policy
from extractlib.errors import InputError
from extractlib.models import networks
from extractlib.models.classifier import Victim
from extractlib.models.networks import NETWORKS
from extractlib.models.training import Recipe
from extractlib.registry import Registry
from extractlib.store import Store

# -- the registry itself -------------------------------------------------------------


@given(st.lists(st.text(min_size=1), unique=True))
def test_names_are_kept_in_order(names):
    registry = Registry("toy")
    for number, name in enumerate(names):
        assert registry.add(name, number) == number
    assert list(registry) == names and len(registry) == len(names)
    assert dict(registry) == {name: number for number, name in enumerate(names)}
    assert isinstance(registry, Mapping)
    for name in names:
        assert name in registry
        del registry[name]
        assert name not in registry
    assert len(registry) == 0


def test_a_decorator_adds_and_returns():
    registry = Registry("toy")

    @registry.register("double")
    def double(number):
        return 2 * number

    assert double(3) == 6 and registry["double"] is double


def test_an_unknown_name_lists_all():
    registry = Registry("toy")
    registry.add("one", 1)
    registry.add("two", 2)
    with pytest.raises(InputError, match="^unknown toy 'three': use one of one, two$"):
        registry["three"]


def test_a_name_that_exists_is_refused_and_keeps_its_entry():
    registry = Registry("toy")
    registry.add("one", 1)
    with pytest.raises(InputError, match="^there is already a toy 'one': choose another name$"):
        registry.add("one", 2)
    assert registry["one"] == 1


@pytest.mark.parametrize("name", ["", None, 1])
def test_names_that_are_none(name):
    with pytest.raises(InputError, match="name of a toy is .*: expected a non-empty name"):
        Registry("toy").add(name, 1)


@pytest.mark.parametrize(
    ("registry", "name", "kind"),
    [(NETWORKS, "resnet", "network"), (POLICIES, "deny", "policy"), (SETS, "signs", "task")],
)
def test_the_packages_own_names_are_taken(registry, name, kind):
    before = registry[name]
    with pytest.raises(InputError, match=f"there is already a {kind}.* {name!r}"):
        registry.add(name, lambda *given: given)
    assert registry[name] is before


def test_what_is_defined_again_takes_the_place_of_the_first():
    """As when a cell of a notebook is run again; two lambdas are not told apart by where they are defined."""
    registry = Registry("toy")

    def define():
        @registry.register("one")
        def one():
            pass

        return one

    first, second = define(), define()
    assert registry["one"] is second is not first
    registry.add("two", lambda: 1)
    with pytest.raises(InputError, match="there is already a toy 'two'"):
        registry.add("two", lambda: 2)


# -- added from outside --------------------------------------------------------------


@pytest.fixture
def added():
    """Add entries for the time of a test."""
    names = []

    def add(registry, name, entry):
        names.append((registry, name))
        return registry.add(name, entry)

    yield add
    for registry, name in names:
        del registry[name]


class Means(networks.Network):
    """A linear function of each channel's mean."""

    def __init__(self, *, classes: int):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(3))
        self.head = torch.nn.Linear(3, classes)

    def features(self, x):
        return x.mean((2, 3)) * self.scale


def test_a_network(added, tmp_path):
    added(NETWORKS, "means", Means)
    images = from_tensor(noise(30), torch.arange(30) % 3)
    options = {"network": "means", "recipe": Recipe(epochs=1, learning_rate=0.1, batch_size=8), "progress": False}
    victim = Victim.train(images, backbone=None, store=Store(tmp_path), **options)
    means = ((images.images.float() - 127.5) / 63.75).mean((2, 3))
    with torch.no_grad():
        torch.testing.assert_close(victim.logits(images.images), victim.model.head(means * victim.model.scale))
    backbone = networks.backbone_state(victim.model)
    assert set(backbone) == {"scale"}
    start = networks.build("means", classes=5, seed=0, backbone=backbone)
    assert torch.equal(start.scale, victim.model.scale) and start.head.out_features == 5
    victim.save(tmp_path / "means")
    again = Victim.load(tmp_path / "means", network="means", classes=images.classes)
    assert again.fingerprint == victim.fingerprint
    # Detectors and attacks take it as they take the package's own.
    score = xl.detectors.OdinDetector(victim, temperature=1.0, epsilon=0.0).score(images.images)
    torch.testing.assert_close(score, -victim.logits(images.images).softmax(1).max(1).values)
    attack = xl.attacks.Knockoff(budget=20, seed=0)
    surrogate = attack(xl.PredictionAPI(victim), images, surrogate="means", backbone=None, progress=False)
    assert isinstance(surrogate.model, Means) and surrogate.logits(images.images).shape == (30, 3)
    with pytest.raises(InputError, match="no backbone ships for network 'means'"):
        Victim.train(images, **options)


def test_a_network_that_is_none_is_refused(added):
    added(NETWORKS, "flat", lambda classes: torch.nn.Linear(3, classes))
    with pytest.raises(InputError, match="network 'flat' makes a Linear: expected a networks.Network"):
        networks.build("flat", classes=3, seed=0)


def test_a_network_taken_out_is_unknown(added):
    with pytest.raises(InputError, match=f"unknown network 'means': use one of {', '.join(NETWORKS)}"):
        networks.build("means", classes=3, seed=0)


@dataclass(frozen=True)
class Uniform(Unchanged):
    """A detected query gets equal probabilities."""

    leaks = "that the query was detected"

    def _instead(self, probabilities, images):
        return torch.full_like(probabilities, 1 / probabilities.shape[1])


class Bright:
    """Detects images whose first pixel is bright."""

    fingerprint = "bright"

    def detect(self, images):
        return images[:, 0, 0, 0] > 127


def test_a_policy(added):
    added(POLICIES, "uniform", lambda secret: Uniform())
    images, made = noise(20), policy("uniform", secret=b"any")
    plain = xl.PredictionAPI(linear_victim()).query(images).probabilities
    shown = xl.PredictionAPI(linear_victim(), detector=Bright(), policy=made).query(images).probabilities
    caught = images[:, 0, 0, 0] > 127
    assert 0 < int(caught.sum()) < 20
    assert torch.equal(shown[~caught], plain[~caught])
    assert shown[caught].flatten().tolist() == pytest.approx([0.1] * 10 * int(caught.sum()))
    others = {policy(name, secret=b"any").fingerprint for name in POLICIES if name != "uniform"}
    assert made.fingerprint not in others


def halves(loader, name, seed):
    """Return a task of two classes, dark and light, 8 images a part."""

    def part(number):
        images = noise(8, seed=100 * seed + number) // 2 + 127 * (torch.arange(8) % 2).view(-1, 1, 1, 1).byte()
        return from_tensor(images, torch.arange(8) % 2, classes=("dark", "light"), name=f"{name}/{number}")

    names = ("victim", "detector", "adversary", "validation", "test")
    return {name: part(number) for number, name in enumerate(names)}


def test_a_task(added):
    added(SETS, "halves", Provider("task", halves))
    parts = xl.load("halves", seed=3)
    assert list(parts) == ["victim", "detector", "adversary", "validation", "test"]
    assert parts.test.classes == ("dark", "light") and parts.test.labels.tolist() == [0, 1] * 4
    loader = Loader()
    assert loader.task("halves", seed=3)["test"].fingerprint == parts.test.fingerprint
    assert loader.task("halves", seed=4)["test"].fingerprint != parts.test.fingerprint
    queries = loader.queries("halves", seed=3)
    assert torch.equal(queries.images, parts.adversary.images) and queries.labels is None
    # Where the provider says nothing of it, the adversary's part is moved and relit.
    shifted = loader.queries(Source("halves").shifted(), seed=3, labeled=True)
    assert shifted.labels.tolist() == [0, 1] * 4 and not torch.equal(shifted.images, parts.adversary.images)
    with pytest.raises(InputError, match="halves is not a pool: use one of atlas"):
        loader.pool("halves", seed=0)
    with pytest.raises(InputError, match="halves is not a registered pool: only such a pool can be cut"):
        Source("halves").cut(1)


def test_a_tasks_own_other_source(added):
    other = from_tensor(noise(4, seed=9), name="other")
    added(SETS, "halves", Provider("task", halves, lambda loader, name, seed: other))
    assert torch.equal(Loader().queries("halves/shifted", seed=0).images, other.images)


def test_a_pool(added):
    def parts(loader, name, seed):
        labels = torch.arange(12) % 4
        return {"queries": from_tensor(noise(12, seed=seed), labels, classes=list("wxyz"), name=name)}

    added(SETS, "dozen", Provider("pool", parts))
    loader = Loader()
    assert loader.queries("dozen", seed=0).labels is None
    assert loader.queries("dozen", seed=0, labeled=True).classes == ("w", "x", "y", "z")
    cut = loader.queries(Source("dozen").cut(2), seed=0, labeled=True)
    assert len(cut) == 6 and len(cut.labels.unique()) == 2
    assert Source.parse("dozen/2") == Source("dozen").cut(2)
    assert len(xl.load("dozen").queries) == 12


def test_a_set_taken_out_is_unknown():
    with pytest.raises(InputError, match="unknown task or pool 'dozen': use one of .*signs.*, atlas"):
        Source("dozen")
