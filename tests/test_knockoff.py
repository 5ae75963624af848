"""Knockoff nets: the draw, the collection that survives any kill, the surrogate."""

import random
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import monotonic

import numpy as np
import pytest
import torch
from killing import boundaries, charged, content, killed, killed_after
from linear_victim import SIDE, linear_victim, noise, remote
from serving import pool_of
from torch import nn

import extractlib as xl
from extractlib.api.meter import BudgetExceeded, Meter
from extractlib.api.service import Answers, PredictionAPI
from extractlib.attacks import knockoff
from extractlib.attacks.knockoff import SURROGATE, Knockoff, OutOfBudget
from extractlib.attacks.transfer import load
from extractlib.data.images import ImageSet
from extractlib.defenses.detectors import Everything
from extractlib.defenses.policies import Deny
from extractlib.errors import InputError, ResultWarning
from extractlib.models import networks
from extractlib.models.classifier import Surrogate
from extractlib.models.fitted import Trainer
from extractlib.models.training import Recipe, predict
from extractlib.store import Store

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
    with pytest.raises(InputError, match=f"^budget is {budget!r}: expected a whole number of at least 1$"):
        Knockoff(budget=budget)


def test_other_bad_settings_are_refused(tmp_path):
    with pytest.raises(InputError, match="^batch is 0: expected a whole number of at least 1$"):
        Knockoff(budget=1, batch=0)
    for seed in (-1, True, 0.5):
        with pytest.raises(InputError, match=f"^seed is {seed}: expected a whole number from 0 to 1,099,511,627,776$"):
            Knockoff(budget=1, seed=seed)
    api = PredictionAPI(linear_victim())
    with pytest.raises(InputError, match="^budget is 61, but the pool holds 60 images: query at most that many$"):
        Knockoff(budget=61).collect(api, POOL, tmp_path / "t.db")
    assert api.usage("attacker").queries == 0
    assert not list(tmp_path.iterdir())


# -- collecting --------------------------------------------------------------


@pytest.mark.parametrize("text", ["full", "top-3", "rounded-2", "label"])
def test_collect_asks_each_index_once_and_keeps_the_answers(tmp_path, text):
    victim = linear_victim()
    api = PredictionAPI(victim, answers=text, budget=50)
    attack = Knockoff(budget=50, seed=2, batch=16)
    transfer = attack.collect(api, POOL, tmp_path / "t.db")
    assert victim.calls == [16, 16, 16, 2]
    assert torch.equal(transfer.indices, attack.indices(60))
    expected = PredictionAPI(linear_victim(), answers=text).query(POOL.images[transfer.indices])
    assert torch.equal(transfer.answers.labels, expected.labels)
    torch.testing.assert_close(transfer.answers.targets(10), expected.targets(10), rtol=0, atol=1e-3)
    assert api.usage("attacker").queries == len(transfer) == 50


def test_collecting_again_asks_nothing(tmp_path):
    victim = linear_victim()
    api = PredictionAPI(victim, budget=50)
    attack = Knockoff(budget=50, batch=16)
    first = attack.collect(api, POOL, tmp_path / "t.db")
    again = attack.collect(api, POOL, tmp_path / "t.db")
    assert victim.calls == [16, 16, 16, 2]
    assert torch.equal(first.answers.probabilities, again.answers.probabilities)
    # A lost file costs nothing either: the meter still knows every answer.
    whole = content(tmp_path / "t.db")
    (tmp_path / "t.db").unlink()
    attack.collect(api, POOL, tmp_path / "t.db")
    assert content(tmp_path / "t.db") == whole
    assert api.usage("attacker").queries == 50


def test_without_a_file_the_set_is_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    attack, api = Knockoff(budget=50, seed=2, batch=16), PredictionAPI(linear_victim(), answers="top-3")
    in_memory = attack.collect(api, POOL)
    assert not list(tmp_path.iterdir())
    in_file = attack.collect(api, POOL, tmp_path / "t.db")
    assert in_memory.header == in_file.header and torch.equal(in_memory.indices, in_file.indices)
    for one, other in zip(vars(in_memory.answers).values(), vars(in_file.answers).values(), strict=True):
        assert torch.equal(one, other)
    assert api.usage("attacker").queries == 50


def test_the_attacker_goes_by_its_name():
    api = PredictionAPI(linear_victim())
    Knockoff(budget=9, client="eve").collect(api, POOL)
    assert (api.usage("eve").queries, api.usage("attacker").queries) == (9, 0)
    for name in ("", None, 1, "\ud800"):
        with pytest.raises(InputError, match="^client is .*: expected a non-empty name$"):
            Knockoff(budget=9, client=name)


def test_an_api_that_allows_less_stops_the_collection_which_a_larger_budget_resumes(tmp_path):
    meter = Meter()
    api = PredictionAPI(linear_victim(), budget=40, meter=meter)
    attack = Knockoff(budget=50, batch=16)
    with pytest.raises(BudgetExceeded, match="client 'attacker' may send 40 queries, but the attack needs 50: give it"):
        attack.collect(api, POOL, tmp_path / "t.db")
    assert api.usage("attacker").queries == 0 and not list(tmp_path.iterdir())
    api.query(POOL.images[:1], client="attacker")  # from then on a request may be one that was answered before
    with pytest.raises(BudgetExceeded, match="client 'attacker' asks 16 queries and 7 of 40 are left"):
        attack.collect(api, POOL, tmp_path / "t.db")
    assert api.usage("attacker").queries == 1 + len(load(tmp_path / "t.db", partial=True)) == 33
    api = PredictionAPI(linear_victim(), budget=51, meter=meter)
    assert len(attack.collect(api, POOL, tmp_path / "t.db")) == api.usage("attacker").queries - 1 == 50


def test_the_file_of_another_api_is_refused(tmp_path):
    attack = Knockoff(budget=20, batch=8)
    attack.collect(PredictionAPI(linear_victim()), POOL, tmp_path / "t.db")
    other = PredictionAPI(linear_victim(seed=1))
    with pytest.raises(InputError, match="t.db is the transfer set of another api, '[0-9a-f]{40}' instead of"):
        attack.collect(other, POOL, tmp_path / "t.db")
    assert other.usage("attacker").queries == 0


@pytest.mark.parametrize("text", ["full", "top-3", "rounded-2", "label"])
def test_an_api_is_whatever_answers_and_says_what_an_answer_is(text):
    """A far one's granularity may be its name."""
    near = PredictionAPI(linear_victim(), answers=text)
    expected = Knockoff(budget=50).collect(near, POOL)
    for far in (remote(near), remote(near)):
        far.granularity = str(far.granularity)
        found = Knockoff(budget=50).collect(far, POOL)
        assert found.header == expected.header
        assert torch.equal(found.answers.targets(10), expected.answers.targets(10))


@pytest.mark.parametrize("missing", ["query", "classes", "granularity", "fingerprint"])
@pytest.mark.parametrize("how", ["call", "collect"])
def test_what_an_api_lacks_is_named_before_anything_is_asked(tmp_path, missing, how):
    near = PredictionAPI(linear_victim())
    run = Knockoff(budget=50) if how == "call" else Knockoff(budget=50).collect
    with pytest.raises(InputError, match=f"^the API is a SimpleNamespace without '{missing}': give the object one"):
        run(remote(near, without=missing), POOL)
    assert near.usage("attacker").queries == 0


def test_answers_that_do_not_fit_are_not_kept(tmp_path):
    near = PredictionAPI(linear_victim(), answers="full")
    far = remote(near)
    for spoil, words in (
        (lambda answers: Answers(answers.labels), "the answers' probabilities are not those of granularity full"),
        (
            lambda answers: answers[:-1],
            r"the API\'s answers have labels \(15,\) for 16 images: return granularity.show",
        ),
    ):
        far.query = lambda images, spoil=spoil, **options: spoil(near.query(images, **options))
        with pytest.raises(InputError, match=f"^{words}"):
            Knockoff(budget=50, batch=16).collect(far, POOL, tmp_path / "t.db")
        assert len(load(tmp_path / "t.db", partial=True)) == 0


@pytest.mark.parametrize(
    ("spoiled", "words"),
    [
        (lambda answers: list(answers.labels), "are a list"),
        (lambda answers: None, "are a NoneType"),
        (lambda answers: replace(answers, labels=answers.labels + 10), "have labels from 1. to 1. for 10 classes"),
        (lambda answers: replace(answers, labels=None), "have labels a NoneType for 16 images"),
        (lambda answers: replace(answers, classes=answers.labels[:, None] + 10), "have classes from 1. to 1. of 10"),
        (
            lambda answers: replace(answers, probabilities=[0.1]),
            r"have classes and probabilities a NoneType and a list",
        ),
        (lambda answers: replace(answers, probabilities=answers.probabilities.log()), "have probabilities from -"),
        (lambda answers: replace(answers, probabilities=100 * answers.probabilities), "have probabilities from .* to "),
        (lambda answers: replace(answers, probabilities=answers.probabilities.sqrt()), "have probabilities that sum"),
    ],
)
def test_what_an_own_api_returns_is_checked_before_it_is_kept(spoiled, words):
    near = PredictionAPI(linear_victim(), answers="full")
    far = remote(near)
    far.query = lambda images, **options: spoiled(near.query(images, **options))
    with pytest.raises(InputError, match=f"^the API's answers {words}.*: return granularity.show"):
        Knockoff(budget=50, batch=16).collect(far, POOL)


@pytest.mark.parametrize(
    "changed",
    [
        lambda answers: replace(answers, probabilities=answers.probabilities.clone().requires_grad_() * 1),
        lambda answers: replace(answers, probabilities=answers.probabilities.double()),
        lambda answers: replace(answers, probabilities=answers.probabilities.bfloat16()),
        lambda answers: replace(answers, labels=answers.labels.to(torch.uint8)),
        lambda answers: replace(answers, labels=answers.labels.int()),
    ],
)
def test_an_own_api_may_answer_in_any_precision_and_with_gradients(tmp_path, changed):
    near = PredictionAPI(linear_victim(), answers="full")
    far = remote(near)
    far.query = lambda images, **options: changed(near.query(images, **options))
    attack = Knockoff(budget=50, batch=16)
    found, expected = attack.collect(far, POOL, tmp_path / "t.db"), attack.collect(near, POOL)
    assert torch.equal(found.answers.labels, expected.answers.labels)
    torch.testing.assert_close(found.answers.probabilities, expected.answers.probabilities, rtol=0.01, atol=0)


def test_a_sum_that_is_hardly_above_one_is_shown_with_its_digits():
    answers = Answers(torch.tensor([1]), None, torch.tensor([[0.25, 0.753]]))
    with pytest.raises(InputError, match=r"have probabilities that sum to 1\.003"):
        xl.api.Granularity.parse("full").check(answers, count=1, classes=2)


def test_answers_that_are_all_alike_are_reported():
    victim = replace(linear_victim(), weights=torch.zeros(3 * SIDE * SIDE, 10))
    small = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 10))
    with pytest.warns(ResultWarning, match="the answers all have the same label, number 0: query with other images"):
        Knockoff(budget=20)(PredictionAPI(victim), POOL, surrogate=small, progress=False)


# -- killed anywhere ---------------------------------------------------------

ATTACK = Knockoff(budget=50, seed=1, batch=16)
VICTIM = linear_victim()


def collect(folder: Path, attack: Knockoff = ATTACK) -> None:
    meter = Meter(folder / "meter.db")
    api = PredictionAPI(VICTIM, answers="top-3", budget=50, price=1.0, meter=meter)
    attack.collect(api, POOL, folder / "t.db")
    meter.close()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> tuple[list[tuple], list[str]]:
    """The transfer set of a collection that nothing interrupts, and the boundaries it passes."""
    folder = tmp_path_factory.mktemp("unbroken")
    events = boundaries(partial(collect, folder))
    assert charged(folder / "meter.db") == (4, 50, 50.0)
    return content(folder / "t.db"), events


def ends_as_unbroken(folder: Path, whole: list[tuple]) -> bool:
    collect(folder)
    return content(folder / "t.db") == whole and charged(folder / "meter.db") == (4, 50, 50.0)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    "event",
    [f"{place}: {word}" for place in ("meter", "t") for word in ("PRAGMA", "CREATE", "BEGIN", "INSERT", "COMMIT")]
    + ["meter: UPDATE", "before a charge", "after a charge", "before a append", "after a append"],
)
def test_killed_at_a_write_boundary_it_ends_as_unbroken(tmp_path, unbroken, event, share):
    """`share`: how far along the run, from the first such boundary to the last."""
    whole, events = unbroken
    places = [number for number, name in enumerate(events) if name == event]
    killed(partial(collect, tmp_path), at=places[round(share * (len(places) - 1))])
    assert ends_as_unbroken(tmp_path, whole)


@pytest.mark.parametrize("seed", range(12))
def test_killed_at_random_boundaries_it_ends_as_unbroken(tmp_path, unbroken, seed):
    """Killed once anywhere in the run, and then again while the meter is opened anew."""
    whole, events = unbroken
    generator = random.Random(seed)
    killed(partial(collect, tmp_path), at=generator.randrange(len(events)))
    killed(partial(collect, tmp_path), at=generator.randrange(4))
    assert ends_as_unbroken(tmp_path, whole)


def records_in(path):
    """Return the records of a collection, which may have been killed before it created its tables."""
    try:
        return len(load(path, partial=True))
    except InputError as error:
        assert "it is empty" in str(error)
        return 0


def test_killed_again_and_again_at_any_moment_it_ends_as_unbroken(tmp_path):
    """By the clock, so also amid a write and a sync: charges and records are those of one run."""
    attack, generator = replace(ATTACK, batch=2), random.Random(0)
    (tmp_path / "unbroken").mkdir()
    began = monotonic()
    collect(tmp_path / "unbroken", attack)
    pause = monotonic() - began
    for attempt in range(10):  # a run that ends before its second kill is begun anew, with shorter pauses
        folder, kills, pause = tmp_path / f"broken-{attempt}", 0, pause / 2
        folder.mkdir()
        while killed_after(partial(collect, folder, attack), generator.uniform(0.1, 1.0) * pause * (1 + kills / 5)):
            kills += 1
            if (folder / "t.db").exists() and kills % 3 == 0:
                records = records_in(folder / "t.db")
                assert records <= charged(folder / "meter.db")[1] <= records + 2
        assert content(folder / "t.db") == content(tmp_path / "unbroken" / "t.db")
        assert charged(folder / "meter.db") == (25, 50, 50.0)
        if kills > 1:
            return
    pytest.fail("no run was killed twice")


# -- the surrogate -----------------------------------------------------------

RECIPE = Recipe(epochs=30, learning_rate=0.05, batch_size=25, shift=0, weight_decay=0.0)
SHORT = Recipe(epochs=1, learning_rate=0.1, batch_size=10, shift=0)


def surrogate(transfer, **changes):
    settings = {"network": "tiny", "recipe": RECIPE, "seed": 0}
    return Knockoff(budget=50).train(transfer, POOL, Trainer(**settings | changes))


@pytest.fixture(scope="module")
def transfer():
    return Knockoff(budget=50).collect(PredictionAPI(linear_victim(3), answers="top-2"), POOL)


def test_the_surrogate_learns_the_answers_of_the_queried_images(transfer):
    model = surrogate(transfer)
    assert not model.training
    predicted = predict(model, POOL.images[transfer.indices]).argmax(1)
    assert float((predicted == transfer.answers.labels).float().mean()) >= 0.9


def test_each_surrogate_is_fresh_and_follows_its_seed(transfer):
    first, again, small, other = (
        surrogate(part, recipe=SHORT, seed=seed)
        for part, seed in ((transfer, 0), (transfer, 0), (transfer.first(20), 0), (transfer, 1))
    )
    outputs = [predict(model, POOL.images) for model in (first, again, small, other)]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2]) and not torch.allclose(outputs[0], outputs[3])


def test_another_pool_is_refused(transfer):
    other = ImageSet("other", noise(60), None, (), "another pool")
    with pytest.raises(InputError, match="^the transfer set's queries are not from other: give the pool that was"):
        Knockoff(budget=50).train(transfer, other, Trainer(network="tiny", recipe=RECIPE, seed=0))


class Guard:
    """Denies the images whose first pixel is dark, or all."""

    def __init__(self, below: int):
        self.below, self.fingerprint = below, f"guard {below}"

    def detect(self, images):
        return images[:, 0, 0, 0].int() < self.below

    def answer(self, probabilities, detected, images):
        return probabilities.masked_fill(detected[:, None], torch.nan)


def test_denied_answers_teach_nothing(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        "extractlib.models.fitted.fit",
        lambda model, images, targets, recipe, **options: seen.update(images=images, targets=targets) or model,
    )
    api = PredictionAPI(linear_victim(), detector=Guard(128), policy=Guard(128))
    transfer = Knockoff(budget=50).collect(api, POOL)
    surrogate(transfer)
    answered = POOL.images[transfer.indices, 0, 0, 0] >= 128
    assert 10 < int(answered.sum()) < 40
    assert torch.equal(seen["images"], POOL.images[transfer.indices[answered]])
    assert torch.equal(seen["targets"], transfer.answers[answered].targets(10))


@pytest.mark.parametrize("fill", ["even", "renormalized"])
def test_truncated_answers_are_filled_in_as_the_attack_says(monkeypatch, transfer, fill):
    taught = []
    monkeypatch.setattr(
        "extractlib.models.fitted.fit",
        lambda model, images, targets, recipe, **options: taught.append(targets) or model,
    )
    Knockoff(budget=50, fill=fill).train(transfer, POOL, Trainer(network="tiny", recipe=RECIPE, seed=0))
    assert torch.equal(taught[0], transfer.answers.targets(3, fill=fill))
    hidden = 1 - transfer.answers.probabilities.sum(1)  # of the third class
    assert taught[0].min(1).values.tolist() == pytest.approx(
        (hidden if fill == "even" else hidden * 0).tolist(), abs=1e-3
    )
    with pytest.raises(InputError, match="^unknown fill 'zeros': use one of even, renormalized$"):
        Knockoff(budget=50, fill="zeros")


@pytest.mark.parametrize("answered", [0, 1])
def test_when_all_but_one_is_denied_the_surrogate_stays_as_it_begins(answered):
    shade = POOL.images[:, 0, 0, 0].int()
    level = 256 - answered * (256 - int(shade.max()))  # of the brightest first pixel alone, if of any, an answer comes
    api = PredictionAPI(linear_victim(), detector=Guard(level), policy=Guard(level))
    others = (shade < shade.max()).nonzero()[:49, 0]
    pool = POOL.subset(torch.cat([shade.argmax()[None], others]))
    transfer = Knockoff(budget=len(pool)).collect(api, pool)
    assert int((~transfer.answers.denied).sum()) == answered
    model = Knockoff(budget=len(pool)).train(transfer, pool, Trainer(network="tiny", recipe=RECIPE, seed=4))
    begins = networks.build("tiny", classes=10, seed=4)
    assert not model.training
    assert torch.equal(predict(model, POOL.images), predict(begins, POOL.images))


# -- collecting and training in one call ---------------------------------------


class Plain(nn.Module):
    """A network as in torchvision: floats in, logits out, its last layer is `fc`."""

    def __init__(self, classes: int = 10, channels: int = 3):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv1, self.bn1 = nn.Conv2d(channels, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
            self.fc = nn.Linear(8 * SIDE * SIDE, classes)
        self.range = [0.0, 0.0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.dtype == torch.float32
        self.range = [min(self.range[0], float(x.min())), max(self.range[1], float(x.max()))]
        return self.fc(self.bn1(self.conv1(x)).relu().flatten(1))


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return list(states[0]) == list(states[1]) and all(map(torch.equal, *(state.values() for state in states)))


def test_called_it_collects_and_trains_a_named_network():
    api, attack = PredictionAPI(linear_victim(), budget=50), Knockoff(budget=50, seed=3)
    found = attack(api, POOL, surrogate="tiny", recipe=SHORT, backbone=None, progress=False)
    assert isinstance(found, Surrogate)
    assert (found.classes, found.image_shape) == (linear_victim().classes, (3, SIDE, SIDE))
    transfer = attack.collect(PredictionAPI(linear_victim()), POOL)
    apart = attack.train(transfer, POOL, Trainer(network="tiny", recipe=SHORT, seed=3))
    assert same_weights(found.model, apart)
    assert torch.equal(found.logits(POOL.images), predict(apart, POOL.images))
    assert api.usage("attacker").remaining == 0


def test_called_it_trains_as_the_original_unless_told_otherwise():
    pool = ImageSet("pool", noise(20).repeat_interleave(4, 2).repeat_interleave(4, 3))
    victim = replace(linear_victim(), image_shape=pool.image_shape, weights=torch.randn(3 * 256, 10))
    attack = Knockoff(budget=20)
    found = attack(PredictionAPI(victim), pool, progress=False)
    transfer = attack.collect(PredictionAPI(victim), pool)
    assert (SURROGATE.epochs, SURROGATE.learning_rate, SURROGATE.batch_size) == (16, 0.1, 128)
    assert (SURROGATE.weight_decay, SURROGATE.shift) == (0, 0)
    backbone = networks.shipped_backbone("resnet")
    apart = attack.train(transfer, pool, Trainer(network="resnet", recipe=SURROGATE, seed=0, backbone=backbone))
    assert same_weights(found.model, apart)


def test_what_an_attack_is_unless_told_otherwise():
    assert vars(Knockoff(budget=9)) == {"budget": 9, "seed": 0, "batch": 256, "fill": "even", "client": "attacker"}


def test_a_surrogate_is_trained_anew_where_its_version_is_another(tmp_path, monkeypatch):
    attack, trained = Knockoff(budget=20), []
    transfer = attack.collect(PredictionAPI(linear_victim()), POOL)
    monkeypatch.setattr("extractlib.models.fitted.fit", lambda model, *given, **options: trained.append(1) or model)
    for number in (1, 1, 2):
        monkeypatch.setattr(knockoff, "versions", lambda name, number=number: {name: number})
        attack.train(transfer, POOL, Trainer(network="tiny", recipe=SHORT, seed=0, store=Store(tmp_path)))
    assert len(trained) == 2


def test_any_module_can_be_the_surrogate():
    module = Plain()
    before = deepcopy(module)
    found = Knockoff(budget=50)(
        remote(PredictionAPI(linear_victim())), POOL, surrogate=module, recipe=RECIPE, progress=False
    )
    assert torch.equal(module.fc.weight, before.fc.weight)  # a copy of it was trained
    module = found.model.module
    assert not module.training and not torch.equal(module.fc.weight, before.fc.weight)
    # Pixels of 0 and 255 are -2 and 2.
    assert module.range == [-2.0, 2.0]
    logits = module((POOL.images / 255 - 0.5) / 0.25)
    torch.testing.assert_close(found.logits(POOL.images), logits, rtol=0, atol=1e-5)
    labels = linear_victim().logits(POOL.images).argmax(1)
    assert float((found.predict(POOL.images) == labels).float().mean()) > 0.8  # 50 of 60 were asked about


def test_a_network_of_the_package_can_be_given_as_a_module():
    module = networks.build("tiny", classes=10, seed=0)
    found = Knockoff(budget=50)(PredictionAPI(linear_victim()), POOL, surrogate=module, recipe=SHORT, progress=False)
    named = Knockoff(budget=50)(
        PredictionAPI(linear_victim()), POOL, surrogate="tiny", recipe=SHORT, backbone=None, progress=False
    )
    assert found.model is not module and same_weights(found.model, named.model)


class Learning(Plain):
    """Does something else in training mode, after it has drawn a random number as dropout does."""

    def __init__(self, does):
        super().__init__()
        self.does = does

    def forward(self, x):
        logits = super().forward(x)
        return self.does(logits + torch.rand(1)) if self.training else logits


class Sized(Plain):
    def forward(self, x):
        assert x.shape[2] == 224, "wrong height"
        return super().forward(x)


class WithoutWeights(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :10]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"surrogate": Plain(classes=4)},
            r"^the surrogate returned \(1, 4\) for 1 image: expected logits of shape \(1, 10\)",
        ),
        (
            {"surrogate": Plain(channels=1)},
            r"^the surrogate cannot take images of shape \(3, 4, 4\) \(.*\): give",
        ),
        ({"surrogate": networks.build("tiny", classes=3, seed=0)}, r"^the surrogate returned \(1, 3\) for 1 image: "),
        (
            {"surrogate": Sized()},
            r"^the surrogate cannot take images of shape \(3, 4, 4\) \(AssertionError: wrong height.*\): give",
        ),
        ({"surrogate": Learning(lambda logits: (logits, logits))}, "^the module returned a tuple: wrap it"),
        (
            {"surrogate": Learning(lambda logits: logits[:, :4])},
            r"^the surrogate returned \(2, 4\) for 2 images in training: expected logits of shape \(2, 10\)$",
        ),
        (
            {"surrogate": Learning(lambda logits: logits.detach())},
            r"^the surrogate cannot take images of shape \(3, 4, 4\) \(RuntimeError: element 0 of tensors does not re",
        ),
        ({"surrogate": Plain().requires_grad_(False)}, "^the network has no trainable weights: give"),
        ({"surrogate": WithoutWeights()}, "^the network has no trainable weights: give"),
        ({"surrogate": "tinny"}, "^unknown network 'tinny'"),
        ({"surrogate": "tinny", "backbone": None}, "^unknown network 'tinny'"),
        ({"surrogate": "tiny"}, "^no backbone ships for network 'tiny'"),
        ({"surrogate": "tiny", "backbone": "foreign"}, "^unknown backbone 'foreign'"),
        ({"surrogate": "tiny", "backbone": None, "device": "cuda:99"}, "^device 'cuda:99' was requested"),
        ({"surrogate": "tiny", "backbone": None, "device": "gpu"}, "^unknown device 'gpu'"),
    ],
)
def test_a_surrogate_that_cannot_be_is_refused_before_anything_is_asked(tmp_path, options, words):
    api = PredictionAPI(linear_victim())
    with pytest.raises(InputError, match=words) as caught:
        Knockoff(budget=50)(api, POOL, recipe=SHORT, keep=tmp_path / "t.db", progress=False, **options)
    assert "\n" not in str(caught.value)
    assert api.usage("attacker").queries == 0
    assert not list(tmp_path.iterdir())


def test_what_is_tried_before_an_attack_changes_neither_the_module_nor_the_callers_draws():
    module = Learning(lambda logits: logits).train()
    before = deepcopy(module.state_dict())
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    Trainer(network=module, recipe=SHORT, seed=0).check(POOL, classes=10, who="surrogate")
    assert torch.rand(1) == expected and module.training
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert all(weight.grad is None for weight in module.parameters())


def test_gray_pools_are_refused_by_networks_of_three_channels():
    pool = ImageSet("gray", noise(60)[:, :1].contiguous())
    victim = replace(linear_victim(), image_shape=None, weights=linear_victim().weights[: SIDE * SIDE])
    api = PredictionAPI(victim)
    with pytest.raises(
        InputError, match="the package's networks take .n, 3, height, width.; repeat a gray channel three"
    ):
        Knockoff(budget=50)(api, pool, surrogate="tiny", backbone=None, progress=False)
    assert api.usage("attacker").queries == 0
    found = Knockoff(budget=50)(api, pool, surrogate=Plain(channels=1), recipe=SHORT, progress=False)
    assert found.logits(pool.images).shape == (60, 10)


def test_what_is_kept_is_not_asked_again(tmp_path):
    victim, path = linear_victim(), tmp_path / "folder" / "t.db"
    options = {"surrogate": "tiny", "recipe": SHORT, "backbone": None, "keep": path, "progress": False}
    first = Knockoff(budget=50)(PredictionAPI(victim), POOL, **options)
    asked = list(victim.calls)
    again = Knockoff(budget=50)(PredictionAPI(victim), POOL, **options)  # whose meter knows of nothing
    assert victim.calls == asked == [50]
    assert len(load(path)) == 50
    assert same_weights(first.model, again.model)


@pytest.mark.parametrize("called_first", [True, False])
def test_a_call_and_a_collection_keep_one_file(tmp_path, called_first):
    """A call resumes what `collect` began and the other way round, and nothing is asked twice."""
    victim, path, attack = linear_victim(), tmp_path / "t.db", Knockoff(budget=50)
    options = {"surrogate": "tiny", "recipe": SHORT, "backbone": None, "keep": path, "progress": False}
    steps = [
        lambda: attack(PredictionAPI(victim), POOL, **options),
        lambda: attack.collect(PredictionAPI(victim), POOL, keep=path),
    ]
    for step in steps if called_first else steps[::-1]:
        step()
    assert victim.calls == [50]


def test_a_module_that_train_returns_is_evaluated_as_a_surrogate(transfer):
    victim = linear_victim(3)
    labeled = replace(POOL, labels=victim.logits(POOL.images).argmax(1), classes=victim.classes)
    module = Knockoff(budget=50).train(transfer, POOL, Trainer(network="tiny", recipe=SHORT, seed=0))
    with pytest.raises(InputError, match=r"the surrogate is a ResNet without 'logits': wrap a module in Surrogate\("):
        xl.evaluate(victim, module, labeled)
    found = xl.evaluate(victim, Surrogate(module, classes=labeled.classes), labeled)
    assert (found.victim_accuracy, found.n) == (1, len(POOL))
    assert found.agreement == float((predict(module, POOL.images).argmax(1) == labeled.labels).double().mean())


@pytest.mark.parametrize("progress", [True, False])
def test_bars_are_shown_only_if_asked_for(capsys, progress):
    api = PredictionAPI(linear_victim())
    Knockoff(budget=50)(api, POOL, surrogate="tiny", recipe=SHORT, backbone=None, progress=progress)
    shown = capsys.readouterr().err
    assert ("collecting: " in shown and "training: " in shown) is progress
    assert bool(shown) is progress


def test_two_attacks_that_are_given_one_module_do_not_share_their_surrogate():
    module = Plain()
    one, other = (
        Knockoff(budget=budget)(PredictionAPI(linear_victim()), POOL, surrogate=module, recipe=RECIPE, progress=False)
        for budget in (10, 50)
    )
    assert one.model.module is not other.model.module and one.fingerprint != other.fingerprint
    again = Knockoff(budget=10)(PredictionAPI(linear_victim()), POOL, surrogate=module, recipe=RECIPE, progress=False)
    assert again.fingerprint == one.fingerprint


def test_a_module_of_ones_own_is_trained_gently_unless_told_otherwise(monkeypatch):
    """Which the package's networks, whose layers normalize, are not."""
    recipes = []
    monkeypatch.setattr(
        "extractlib.models.fitted.fit", lambda model, images, targets, recipe, **_: recipes.append(recipe) or model
    )
    api = PredictionAPI(linear_victim())
    tiny = networks.build("tiny", classes=10, seed=0)
    for options in ({"surrogate": Plain()}, {"surrogate": tiny}, {"surrogate": "tiny", "backbone": None}):
        Knockoff(budget=9)(api, POOL, progress=False, **options)
    assert recipes == [replace(SURROGATE, learning_rate=0.1 * SURROGATE.learning_rate), SURROGATE, SURROGATE]


class Dull(nn.Module):
    """Gives every image the same answer."""

    def __init__(self, value: float):
        super().__init__()
        self.answer, self.value = nn.Parameter(torch.zeros(10)), value

    def forward(self, images):
        return (self.answer + self.value).expand(len(images), -1)


def test_a_surrogate_that_has_learned_nothing_is_told():
    api = PredictionAPI(linear_victim())
    with pytest.warns(ResultWarning, match=r"gives all queries one label, but the answers have \d+: give a recipe=…"):
        Knockoff(budget=50)(api, POOL, surrogate=Dull(0.0), recipe=SHORT, progress=False)
    with pytest.raises(
        InputError, match="the surrogate returns NaN or infinite logits: train it with a lower"
    ) as error:
        Knockoff(budget=50)(api, POOL, surrogate=Dull(float("inf")), recipe=SHORT, progress=False)
    paid = error.value.transfer
    assert len(paid) == 50 and api.usage().queries == 50  # the same request as the one before
    assert error.value.__notes__ == [
        "The answers are in this error's attribute transfer: train(error.transfer, pool, trainer)."
    ]
    Knockoff(budget=50).train(paid, POOL, Trainer(network="tiny", recipe=SHORT, seed=0))
    assert api.usage().queries == 50


def test_a_surrogate_of_denied_answers_is_told_to_be_untrained():
    api = PredictionAPI(linear_victim(), detector=Everything(), policy=Deny())
    with pytest.warns(ResultWarning, match="0 of 9 queries were answered, but at least 2 are needed: the surrogate is"):
        Knockoff(budget=9)(api, POOL, surrogate="tiny", backbone=None, progress=False)


def test_the_usual_trainer_is_that_of_a_call(monkeypatch):
    made = []
    monkeypatch.setattr(
        Trainer, "fit_or_load", lambda self, *_, classes, **__: made.append(self) or self.build(classes)
    )
    attack, api = Knockoff(budget=9, seed=5), PredictionAPI(linear_victim())
    attack(api, POOL, progress=False)
    transfer = attack.collect(api, POOL)
    attack.train(transfer, POOL)
    usual = Trainer(network="resnet", recipe=SURROGATE, seed=5, backbone="shipped")
    assert made == [usual, usual] and attack.trainer() == usual
    assert attack.trainer("vgg", recipe=SHORT, backbone=None) == Trainer(network="vgg", recipe=SHORT, seed=5)
    with pytest.raises(InputError, match="^the recipe is a dict: expected a models.Recipe$"):
        attack.trainer(recipe={})


class First(Knockoff):
    def indices(self, pool_size):
        return torch.arange(self.budget)


@dataclass(frozen=True, kw_only=True)
class Every(Knockoff):
    step: int = 1

    def indices(self, pool_size):
        return torch.arange(0, pool_size, self.step)[: self.budget]


class Sure(Knockoff):
    def train(self, transfer, pool, trainer):
        return super().train(transfer.first(5), pool, trainer)


def test_a_class_that_chooses_otherwise_has_a_strategy_of_its_own():
    """So that two of them can ask one API, each with requests of its own."""
    attacks = [Knockoff(budget=9), Sure(budget=9), First(budget=9), Every(budget=9, step=2), Every(budget=9, step=3)]
    assert [attack.strategy for attack in attacks] == ["random", "random", "First()", "Every(step=2)", "Every(step=3)"]
    api = PredictionAPI(linear_victim())
    asked = [attack.collect(api, POOL).indices.tolist() for attack in (attacks[0], *attacks[2:])]
    assert asked[1:] == [list(range(9)), list(range(0, 18, 2)), list(range(0, 27, 3))]
    assert api.usage("attacker").queries == 4 * 9


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (torch.arange(5), "Chosen chose 5 images: expected 8 here, batch=8 at a time and the rest of the budget"),
        (torch.arange(53, 61), "Chosen chose images 53 to 60 of a pool of 60"),
        (torch.arange(-1, 7), "Chosen chose images -1 to 6 of a pool of 60"),
    ],
)
def test_a_choice_that_is_no_batch_is_refused_before_it_is_paid_for(chosen, message):
    class Chosen(Knockoff):
        def choices(self, pool, classes, trainer):
            while True:
                yield chosen

    api = PredictionAPI(linear_victim())
    with pytest.raises(InputError, match=message):
        Chosen(budget=20, batch=8).collect(api, POOL)
    assert api.usage("attacker").queries == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"surrogate": Plain}, "the surrogate is the class Plain: expected a network's name or an instance"),
        ({"recipe": {"epochs": 3}}, "the recipe is a dict: expected a models.Recipe"),
    ],
)
def test_what_is_no_surrogate_or_recipe_is_refused_before_anything_is_asked(options, message):
    api = PredictionAPI(linear_victim())
    with pytest.raises(InputError, match=message):
        Knockoff(budget=9)(api, POOL, progress=False, **options)
    assert api.usage("attacker").queries == 0


def test_the_pool_may_be_whatever_images_are_made_of(tmp_path):
    found = [
        Knockoff(budget=20)(
            PredictionAPI(linear_victim()), pool, surrogate="tiny", recipe=SHORT, backbone=None, progress=False, **more
        ).fingerprint
        for pool, more in ((POOL.images, {}), (list(POOL.images), {"keep": str(tmp_path / "answers.db")}))
    ]
    assert found[0] == found[1] and len(load(str(tmp_path / "answers.db"))) == 20


def own(**methods):
    return type("Own", (Knockoff,), methods)(budget=6, batch=3)


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        ({"indices": lambda self, size: [1, 2, 3, 4, 5, 6]}, "Own chose a list: expected int64"),
        ({"indices": lambda self, size: torch.arange(6.0)}, r"Own chose \(3,\): expected int64"),
        ({"choices": lambda self, *_: [torch.arange(3)] * 2}, "Own.choices returned a list: yield the batches instead"),
        ({"choices": lambda self, *_: (torch.arange(3) for _ in range(1))}, "Own chose too few images"),
    ],
    ids=["list", "floats", "no generator", "ends early"],
)
def test_a_strategy_of_ones_own_is_told_what_it_does_wrong(methods, words):
    api = PredictionAPI(linear_victim())
    with pytest.raises(InputError, match=words):
        own(**methods).collect(api, pool_of(20))
    assert api.usage("attacker").queries in (0, 3)


def test_a_surrogate_in_half_precision_is_refused_before_anything_is_paid():
    api = PredictionAPI(linear_victim())
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 10)).half()
    with pytest.raises(InputError, match="weight module.1.weight is in half precision: train it in float32"):
        Knockoff(budget=6)(api, pool_of(20), surrogate=module, progress=False)
    assert api.usage("attacker").queries == 0


def test_a_budget_that_was_partly_used_keeps_what_was_answered(tmp_path):
    api, pool = PredictionAPI(linear_victim(), budget=10), pool_of(20)
    api.query(pool.images[:4], client="attacker")
    with pytest.raises(OutOfBudget, match=r"the 6 answers .* transfer.load\('.*kept.db', partial=True\)") as caught:
        Knockoff(budget=10, batch=3).collect(api, pool, tmp_path / "kept.db")
    kept = load(tmp_path / "kept.db", partial=True)
    assert len(kept) == 6 and torch.equal(caught.value.transfer.indices, kept.indices)


def test_answers_in_memory_are_in_the_error_that_ends_an_attack():
    api, pool, attack = PredictionAPI(linear_victim(), budget=10), pool_of(20), Knockoff(budget=10, batch=3)
    api.query(pool.images[:4], client="attacker")
    with pytest.raises(OutOfBudget, match="the 6 answers that were given are in this error's transfer$") as caught:
        attack.collect(api, pool)
    transfer = caught.value.transfer
    assert torch.equal(transfer.indices, attack.indices(20)[:6])
    expected = linear_victim().logits(pool.images[transfer.indices]).softmax(1)
    assert torch.allclose(transfer.answers.probabilities, expected.detach(), atol=1e-3)
    attack.train(transfer, pool, Trainer(network="tiny", recipe=Recipe(epochs=1, learning_rate=0.1), seed=0))


def test_indices_in_bytes_choose_images_and_are_no_mask():
    @dataclass(frozen=True, kw_only=True)
    class Few(Knockoff):
        def indices(self, pool_size):
            return (torch.arange(self.budget) % 2).to(torch.uint8)

    api, pool = PredictionAPI(linear_victim(), budget=6), pool_of(6)
    transfer = Few(budget=6).collect(api, pool)
    assert transfer.indices.tolist() == [0, 1] * 3 and transfer.indices.dtype == torch.int64


def test_a_pool_may_be_a_tensor_to_train_on_too():
    pool, trainer = pool_of(20), Trainer(network="tiny", recipe=SHORT, seed=0)
    transfer = Knockoff(budget=6).collect(PredictionAPI(linear_victim()), pool.images)
    models = [Knockoff(budget=6).train(transfer, given, trainer) for given in (pool.images, xl.images(pool.images))]
    assert same_weights(*models)


def test_a_pool_may_be_a_tensor_to_collect_too():
    api, pool = PredictionAPI(linear_victim()), pool_of(9)
    assert Knockoff(budget=9).collect(api, pool.images).header.pool == xl.images(pool.images, name="pool").fingerprint


def test_a_surrogate_says_how_pixels_are_scaled_and_is_trained_as_your_own_module():
    seen = []

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 10)

        def forward(self, x):
            seen.append(x)
            return self.head(x.mean((2, 3)))

    api, pool = PredictionAPI(linear_victim()), pool_of(40)
    torch.manual_seed(0)
    own = Surrogate(Own(), classes=api.classes, mean=[0.0] * 3, std=[1.0] * 3)
    copy = Knockoff(budget=40)(api, pool, surrogate=own, progress=False)
    assert min(float(x.min()) for x in seen) >= 0  # pixels in [0, 1], not shifted
    again = Knockoff(budget=40)(api, pool, surrogate=own, recipe=replace(SURROGATE, learning_rate=0.01), progress=False)
    assert copy.fingerprint == again.fingerprint
