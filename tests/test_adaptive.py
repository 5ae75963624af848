"""The adaptive strategy: the bandit's step by hand, what it finds, and that any kill is survived."""

import sqlite3
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from killing import boundaries, charged, content, killed
from linear_victim import SIDE, linear_victim, noise, remote
from torch import nn

from extractlib.api.meter import BudgetExceeded, Meter
from extractlib.api.service import Answers, PredictionAPI
from extractlib.attacks import adaptive
from extractlib.attacks.adaptive import (
    ONLINE,
    AdaptiveKnockoff,
    Bandit,
    ClassSampler,
    Hierarchy,
    OnlineSurrogate,
    Reward,
    coarse_clusters,
)
from extractlib.attacks.transfer import load
from extractlib.data.images import ImageSet
from extractlib.errors import InputError, ResultWarning
from extractlib.models.fitted import Trainer
from extractlib.models.training import Recipe, fit, predict

POOL = ImageSet("pool", noise(60), torch.arange(60) % 4, tuple("abcd"), "pool of 60")


class Fixed:
    """A surrogate that answers the same always and counts what it is taught."""

    seen = 0

    def __init__(self, classes: int = 10):
        self.classes = classes

    def probabilities(self, images):
        return torch.full((len(images), self.classes), 1 / self.classes)

    def update(self, images, targets):
        type(self).seen += len(images)

    def features(self, images):
        return images.flatten(1).float()


@pytest.fixture
def fixed(monkeypatch):
    """Put a surrogate that learns nothing into the place of the one that is trained meanwhile."""
    monkeypatch.setattr(Fixed, "seen", 0)
    monkeypatch.setattr(adaptive, "OnlineSurrogate", lambda trainer, *, classes: Fixed(classes))
    return Fixed


# -- the bandit ----------------------------------------------------------------


def test_two_steps_by_hand():
    bandit = Bandit(3)
    bandit.update(0, 1.0)
    # The first reward is its own mean: nothing moves.
    assert bandit.preferences.tolist() == [0, 0, 0]
    bandit.update(1, 4.0)
    # Reward 4, mean 1, N(1) = 1, policy 1/3 each: + 3 · 2/3 for class 1, - 3 · 1/3 for the others.
    assert bandit.preferences == pytest.approx([-1, 2, -1])
    bandit.update(1, 0.0)
    # Mean 2.5, N(1) = 2; exp(-1), exp(2), exp(-1): policy 0.045278, 0.909443, 0.045278.
    step = (0 - 2.5) / 2
    expected = [-1 - step * 0.0452785, 2 + step * (1 - 0.9094429), -1 - step * 0.0452785]
    assert bandit.preferences == pytest.approx(expected, abs=1e-6)


def test_the_policy_is_a_stable_softmax():
    bandit = Bandit(3)
    bandit.preferences = np.array([1000.0, 1000.0 + np.log(3), -1000.0])
    assert bandit.policy() == pytest.approx([0.25, 0.75, 0.0])
    assert bandit.policy(np.array([True, False, True])) == pytest.approx([1.0, 0.0, 0.0])


def test_the_mean_goes_over_the_last_steps():
    bandit, expected = Bandit(2, window=2), np.zeros(2)
    # r̄ before each step: itself, 8, (8 + 2) / 2 = 5, (2 + 5) / 2 = 3.5; over all steps the last would be 5.
    for count, (reward, mean) in enumerate([(8.0, 8.0), (2.0, 8.0), (5.0, 5.0), (6.0, 3.5)], start=1):
        step, policy = (reward - mean) / count, np.exp(expected) / np.exp(expected).sum()
        expected += step * (np.array([1, 0]) - policy)
        bandit.update(0, reward)
        assert bandit.preferences == pytest.approx(expected)


# -- the hierarchy ---------------------------------------------------------------


def test_clusters_are_those_of_the_classes_means():
    """Classes 0 and 2 have their means at 0 and 1, classes 1 and 4 at 99 and 100; class 3 has no image."""
    labels = torch.tensor([0, 0, 2, 2, 1, 1, 4, 4])
    features = torch.tensor([[-5.0], [5.0], [-4.0], [6.0], [90.0], [108.0], [50.0], [150.0]])
    found = coarse_clusters(features, labels, clusters=2, seed=0)
    assert found[0] == found[2] != found[1] == found[4] and len(found) == 5
    assert coarse_clusters(features, labels, clusters=1, seed=0).tolist() == [0] * 5
    apart = coarse_clusters(features, labels, clusters=9, seed=0)
    assert len(set(apart[[0, 1, 2, 4]])) == 4  # as many as there are classes
    assert len(set(coarse_clusters(torch.zeros(8, 1), labels, clusters=3, seed=0)[[0, 1, 2, 4]])) == 1


def test_a_step_of_the_hierarchy_by_hand():
    """Classes 0 and 3 are one cluster, 1, 2 and 4 the other."""
    policy = Hierarchy(np.array([0, 1, 1, 0, 1]), window=9)
    assert [members.tolist() for members in policy.members] == [[0, 3], [1, 2, 4]]
    policy.update(2, 1.0)  # the first reward of a bandit is its own mean
    policy.update(0, 4.0)
    # Clusters: reward 4, mean 1, policy 1/2 each, N = 1. In the first cluster it is the first reward.
    assert policy.coarse.preferences == pytest.approx([1.5, -1.5])
    assert policy.fine[0].preferences.tolist() == [0, 0]
    policy.update(4, 3.0)
    # In the second cluster: reward 3, mean 1, policy 1/3 each, N = 1: + 2 · 2/3 for class 4, - 2 · 1/3 for the others.
    assert policy.fine[1].preferences == pytest.approx([-2 / 3, -2 / 3, 4 / 3])


def test_classes_are_chosen_by_cluster_and_then_within_it():
    """Of 4,000 draws, the standard deviation of a share is at most 0.008."""
    policy, generator = Hierarchy(np.array([0, 1, 1]), window=9), np.random.default_rng(0)
    policy.coarse.preferences = np.array([0.0, np.log(3.0)])
    policy.fine[1].preferences = np.array([np.log(4.0), 0.0])
    every = np.ones(3, bool)
    shares = np.bincount([policy.choose(every, generator) for _ in range(4_000)], minlength=3) / 4_000
    assert shares == pytest.approx([0.25, 0.6, 0.15], abs=0.03)
    # What is dry is chosen no more, neither a class nor a whole cluster.
    assert {policy.choose(np.array([True, False, True]), generator) for _ in range(200)} == {0, 2}
    assert {policy.choose(np.array([True, False, False]), generator) for _ in range(50)} == {0}


def test_the_sampler_gives_each_image_once_and_in_its_class():
    labels = torch.tensor([0] * 5 + [1] * 50 + [2] * 3)
    sampler = ClassSampler(labels, 4, np.random.default_rng(0))
    assert sampler.left.tolist() == [5, 50, 3, 0]
    drawn = {label: [sampler.take(label, 20).tolist() for _ in range(4)] for label in range(4)}
    assert [len(part) for part in drawn[1]] == [20, 20, 10, 0]
    for label, parts in drawn.items():
        assert sorted(sum(parts, [])) == (labels == label).nonzero()[:, 0].tolist()
    assert sampler.left.tolist() == [0] * 4


def test_the_sampler_follows_its_generator():
    labels = torch.zeros(50, dtype=torch.int64)
    draws = [ClassSampler(labels, 1, np.random.default_rng(seed)).take(0, 50).tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert sorted(draws[0]) == sorted(draws[2]) == list(range(50)) != draws[0]


# -- rewards -------------------------------------------------------------------

TARGETS = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.5, 0.0]])


def test_certainty_and_diversity_by_hand():
    assert Reward("certainty", None).of(noise(2), TARGETS) == pytest.approx([0.5, 0.0])
    reward = Reward("diversity", None)
    # Before the first answer the mean is 0; before the second it is the first: max(0, .5 - .7) + max(0, .5 - .2) = .3.
    assert reward.of(noise(2), TARGETS) == pytest.approx([1.0, 0.3])
    # The mean of both is (.6, .35, .05): .1 - .6 is below 0, .8 - .35 and .1 - .05 are above.
    assert reward.of(noise(1), torch.tensor([[0.1, 0.8, 0.1]])) == pytest.approx([0.5])


def test_loss_by_hand():
    # A learner that says a third each: log 3, whatever the answer.
    assert Reward("loss", Fixed(3)).of(noise(2), TARGETS) == pytest.approx([np.log(3)] * 2)
    with pytest.raises(InputError, match="^reward 'loss' compares answers with a surrogate: give a learner$"):
        Reward("loss", None).of(noise(2), TARGETS)


def test_all_is_the_mean_of_rewards_brought_to_0_to_1_by_their_extremes():
    reward = Reward("all", Fixed(3))
    # Certainty 0.5 and 0, diversity 1 and 0.3, the loss twice the same: 1 and 0 of the first two, 0 of the last.
    assert reward.of(noise(2), TARGETS) == pytest.approx([2 / 3, 0], abs=1e-6)
    # Certainty 0.7 is the highest yet, diversity 0.5 lies 0.2 of 0.7 above the lowest.
    assert reward.of(noise(1), torch.tensor([[0.1, 0.8, 0.1]])) == pytest.approx([(1 + 0.2 / 0.7) / 3], abs=1e-6)
    # And the first reward of all is its own lowest and highest.
    assert Reward("all", Fixed(3)).of(noise(1), TARGETS[:1]) == pytest.approx([0])


# -- the attack ----------------------------------------------------------------


TINY = Trainer(network="tiny", recipe=Recipe(epochs=3, learning_rate=0.1), seed=0)


def collect(path, *, pool=POOL, budget=40, trainer=TINY, api=None, **options):
    api = api or PredictionAPI(linear_victim())
    attack = AdaptiveKnockoff(budget=budget, **{"batch": 8, "clusters": 2} | options)
    return attack.collect(api, pool, path, trainer=trainer)


def test_certainty_is_refused_where_every_answer_is_certain():
    api = PredictionAPI(linear_victim(), answers="label")
    with pytest.raises(InputError, match="reward 'certainty' is 1 for every label: use another reward"):
        collect(None, api=api, reward="certainty")
    assert api.usage().queries == 0
    assert len(collect(None, api=api, reward="diversity")) == 40


@pytest.mark.parametrize("reward", ["certainty", "diversity", "loss", "all"])
def test_no_image_is_asked_twice_and_the_whole_pool_can_be(tmp_path, fixed, reward):
    transfer = collect(tmp_path / "t", budget=60, reward=reward)
    assert sorted(transfer.indices.tolist()) == list(range(60))
    # The last batch, of four, has nothing to choose any more.
    assert fixed.seen == (56 if reward in ("loss", "all") else 0)
    expected = linear_victim().logits(POOL.images[transfer.indices]).softmax(1)
    assert torch.equal(transfer.answers.probabilities, expected.detach().half().float())


@pytest.mark.parametrize("reward", ["certainty", "all"])
def test_the_choice_follows_the_seed(fixed, reward):
    chosen = [collect(None, reward=reward, seed=seed).indices.tolist() for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert chosen[0][:8] != chosen[2][:8]  # from the first batch on, before any answer


def test_a_batch_is_one_decision_and_its_reward_the_mean_of_its_answers(monkeypatch, fixed):
    """Against the policy's own record: class and reward of each step."""
    steps, update = [], Hierarchy.update
    monkeypatch.setattr(Hierarchy, "update", lambda policy, *step: steps.append(step) or update(policy, *step))
    transfer = collect(None, reward="certainty", batch=5, budget=30)
    labels = POOL.labels[transfer.indices].view(6, 5)
    assert (labels == labels[:, :1]).all()
    assert [chosen for chosen, _ in steps] == labels[:5, 0].tolist()
    first, second = transfer.answers.targets(10).double().topk(2).values.T
    assert [reward for _, reward in steps] == pytest.approx((first - second).view(6, 5).mean(1)[:5].tolist())


def test_where_a_class_runs_dry_another_decision_fills_the_batch_up(monkeypatch, fixed):
    """Four classes of 15 images, batches of 20: each is of two classes at least, and each class makes its own step."""
    steps, update = [], Hierarchy.update
    monkeypatch.setattr(Hierarchy, "update", lambda policy, *step: steps.append(step) or update(policy, *step))
    transfer = collect(None, reward="certainty", batch=20, budget=60)
    assert [chosen for chosen, _ in steps[:2]] == POOL.labels[transfer.indices[[0, 15]]].tolist()
    first, second = transfer.answers.targets(10).double().topk(2).values.T
    gaps = first - second
    assert [reward for _, reward in steps[:2]] == pytest.approx([gaps[:15].mean().item(), gaps[15:20].mean().item()])


def test_the_surrogate_is_asked_before_it_learns(monkeypatch):
    """A batch's loss is that of a surrogate which has not seen the batch; it learns the stored answers, in order."""
    told = []

    class Told(Fixed):
        def probabilities(self, images):
            told.append(("asked", len(images)))
            return super().probabilities(images)

        def update(self, images, targets):
            told.append(("taught", images, targets))

    monkeypatch.setattr(adaptive, "OnlineSurrogate", lambda trainer, *, classes: Told(classes))
    transfer = collect(None, reward="loss")
    assert [entry[0] for entry in told] == ["asked", "taught"] * 4
    images = torch.cat([entry[1] for entry in told[1::2]])
    assert torch.equal(images, POOL.images[transfer.indices[:32]])
    targets = torch.cat([entry[2] for entry in told[1::2]])
    torch.testing.assert_close(targets, transfer.answers[:32].targets(10), rtol=0, atol=0)


def test_a_smaller_budget_is_the_first_part(tmp_path, fixed):
    few, many = collect(tmp_path / "few", budget=19), collect(tmp_path / "many", budget=50)
    assert few.indices.tolist() == many.indices[:19].tolist()


@pytest.mark.parametrize("clusters", [1, 3])
def test_the_bandit_finds_the_class_that_pays(tmp_path, clusters):
    """Images of class 0 get certain answers, those of nine others flat ones."""
    labels = torch.arange(2_000) % 10
    images = torch.zeros(2_000, 3, SIDE, SIDE, dtype=torch.uint8)
    images[labels == 0] = 255
    pool = ImageSet("pool", images, labels, tuple("0123456789"), "ten")
    victim = linear_victim()
    with torch.no_grad():
        victim.weights[:, 1:] = 0
        victim.weights[:, 0] = 1
    attack = AdaptiveKnockoff(budget=200, batch=2, reward="certainty", clusters=clusters)
    transfer = attack.collect(PredictionAPI(victim), pool, tmp_path / "t", trainer=TINY)
    late = labels[transfer.indices[100:]]
    # By chance it would be a tenth.
    assert (late == 0).double().mean() > 0.4


def test_the_clusters_are_those_of_the_untrained_surrogates_features():
    """Dark and light classes in turn: a network of random weights keeps them apart."""
    labels = torch.arange(80) % 4
    images = torch.where(labels % 2 == 0, 10, 240).byte().view(-1, 1, 1, 1).expand(-1, 3, SIDE, SIDE).contiguous()
    pool = ImageSet("pool", images, labels, tuple("abcde"))
    policy = AdaptiveKnockoff(budget=1, clusters=2).policy(pool, OnlineSurrogate(TINY, classes=10))
    assert sorted(members.tolist() for members in policy.members) in ([[0, 2], [1, 3, 4]], [[0, 2, 4], [1, 3]])
    flat = AdaptiveKnockoff(budget=1, clusters=1).policy(pool, None)
    assert [members.tolist() for members in flat.members] == [[0, 1, 2, 3, 4]]


def test_features_are_what_goes_into_the_last_linear_layer():
    surrogate, images = OnlineSurrogate(TINY, classes=10), noise(6)
    model = surrogate.model
    with torch.no_grad():
        expected = model.features(model.normalize(images))
    torch.testing.assert_close(surrogate.features(images), expected)
    bare = OnlineSurrogate(Trainer(network=nn.Flatten(), recipe=ONLINE, seed=0), classes=10)
    with pytest.raises(InputError, match="^the surrogate has no linear layer .*: give clusters=1$"):
        bare.features(images)


class Twice(nn.Module):
    """Uses its last linear layer twice, the second time on the image as it is, or not at all."""

    def __init__(self, *, used: bool):
        super().__init__()
        self.used, self.first, self.last = used, nn.Linear(3 * SIDE**2, 3 * SIDE**2), nn.Linear(3 * SIDE**2, 3)

    def forward(self, x):
        x = x.flatten(1)
        return self.last(self.first(x)) + self.last(x) if self.used else self.first(x)[:, :3]


def test_features_of_a_layer_that_is_used_twice_are_those_of_the_second_time():
    images = noise(700)  # more than one batch
    learner = OnlineSurrogate(Trainer(network=Twice(used=True), recipe=ONLINE, seed=0), classes=3)
    expected = (images.flatten(1) / 255 - 0.5) / 0.25
    torch.testing.assert_close(learner.features(images), expected)


def test_a_last_linear_layer_that_is_never_used_is_refused():
    learner = OnlineSurrogate(Trainer(network=Twice(used=False), recipe=ONLINE, seed=0), classes=3)
    with pytest.raises(InputError, match="last linear layer does not see one vector of each image.*give clusters=1$"):
        learner.features(noise(3))


@pytest.mark.parametrize("reward", ["loss", "all"])
def test_a_surrogate_that_diverges_along_the_way_costs_no_answers(reward):
    class Wild(nn.Module):
        """Its answer is no number once it has been trained a little."""

        def __init__(self):
            super().__init__()
            self.last = nn.Linear(3 * SIDE**2, 10)

        def forward(self, x):
            return self.last(1e18 * x.flatten(1)) * 1e18

    trainer = Trainer(network=Wild(), recipe=ONLINE, seed=0)
    api = PredictionAPI(linear_victim(), budget=40)
    with pytest.warns(ResultWarning, match="learns along the way has diverged"):
        found = AdaptiveKnockoff(budget=40, reward=reward, clusters=1).collect(api, POOL, trainer=trainer)
    assert len(found) == len(found.indices.unique()) == 40


def test_your_own_module_learns_at_a_tenth_of_the_rate():
    own, named = (
        OnlineSurrogate(Trainer(network=network, recipe=ONLINE, seed=0), classes=3)
        for network in (nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 3)), "tiny")
    )
    assert own._trainer.recipe.learning_rate == pytest.approx(named._trainer.recipe.learning_rate / 10)


@pytest.mark.parametrize("reward", ["certainty", "all"])
def test_a_collection_that_was_cut_off_goes_on_and_ends_as_an_unbroken_one(tmp_path, reward):
    whole, part = tmp_path / "whole.db", tmp_path / "part.db"
    collect(whole, reward=reward)
    limited = PredictionAPI(linear_victim(), budget=25)
    limited.query(POOL.images[:1], client="attacker")
    with pytest.raises(BudgetExceeded):  # after three batches of eight
        collect(part, reward=reward, api=limited)
    assert len(load(part, partial=True)) == 24
    api = PredictionAPI(linear_victim(), budget=16)  # what is left: two batches
    collect(part, reward=reward, api=api)
    assert content(part) == content(whole)
    assert api.usage("attacker").queries == 16


@pytest.mark.parametrize("chunks", [2, 0])
def test_what_was_charged_before_the_kill_is_not_charged_again(tmp_path, chunks):
    """The API has answered five requests and the file holds two chunks, or nothing at all."""
    api, path = PredictionAPI(linear_victim(), budget=40), tmp_path / "t.db"
    collect(path, api=api)
    whole = content(path)
    forget(path, chunks)
    collect(path, api=api)
    assert content(path) == whole
    assert api.usage("attacker").queries == 40


def forget(path: Path, chunks: int) -> None:
    """Take all chunks but the first few out of a transfer set."""
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("DELETE FROM chunks WHERE number >= ?", (chunks,))
    connection.close()


def collect_metered(folder: Path) -> None:
    meter = Meter(folder / "meter.db")
    collect(folder / "t.db", api=PredictionAPI(VICTIM, budget=40, price=1.0, meter=meter))
    meter.close()


VICTIM = linear_victim()


@pytest.mark.parametrize("event", ["after a charge", "t: INSERT", "t: COMMIT"])
def test_killed_at_a_write_boundary_it_ends_as_unbroken(tmp_path, event):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    events = boundaries(partial(collect_metered, whole))
    places = [number for number, name in enumerate(events) if name == event]
    killed(partial(collect_metered, broken), at=places[len(places) // 2])
    collect_metered(broken)
    assert content(broken / "t.db") == content(whole / "t.db")
    assert charged(broken / "meter.db") == charged(whole / "meter.db") == (5, 40, 40.0)


# -- what learns meanwhile -------------------------------------------------------


def online(*, seed: int = 0, **changes) -> OnlineSurrogate:
    return OnlineSurrogate(replace(TINY, seed=seed, **changes), classes=10)


def test_the_online_surrogate_learns():
    surrogate, images = online(), noise(64)
    targets = torch.eye(10)[torch.zeros(64, dtype=torch.int64)]
    before = surrogate.probabilities(images)[:, 0].mean()
    for _ in range(5):
        surrogate.update(images, targets)
    after = surrogate.probabilities(images)
    assert after[:, 0].mean() > before + 0.05
    torch.testing.assert_close(after.sum(1), torch.ones(64))


def test_the_online_surrogate_begins_as_its_trainer_says():
    images = noise(8)
    outputs = [online(seed=seed).probabilities(images) for seed in (0, 0, 1)]
    assert torch.equal(outputs[0], outputs[1]) and not torch.allclose(outputs[0], outputs[2])
    expected = predict(Trainer(network="tiny", recipe=ONLINE, seed=0).build(10).eval(), images).softmax(1)
    assert torch.equal(outputs[0], expected)


def test_the_online_surrogate_is_trained_by_the_recipe_for_batches_with_its_seed():
    images, targets = noise(300), torch.eye(10)[torch.arange(300) % 10]
    found = {}
    for seed in (0, 1):
        surrogate = OnlineSurrogate(replace(TINY, network=TINY.build(10), seed=seed), classes=10)
        surrogate.update(images, targets)
        expected = fit(TINY.build(10), images, targets, ONLINE, seed=seed)
        assert torch.equal(surrogate.probabilities(images), predict(expected, images).softmax(1))
        found[seed] = surrogate.probabilities(images)
    assert not torch.allclose(found[0], found[1])  # the order of the images


def test_the_online_surrogate_is_a_copy():
    module = Trainer(network="tiny", recipe=ONLINE, seed=0).build(10)
    before = deepcopy(module.state_dict())
    surrogate = OnlineSurrogate(Trainer(network=module, recipe=ONLINE, seed=0), classes=10)
    surrogate.update(noise(64), torch.eye(10)[torch.zeros(64, dtype=torch.int64)])
    assert all(map(torch.equal, module.state_dict().values(), before.values()))


def test_the_online_surrogate_is_refused_a_device_that_is_not_there():
    # A GPU that no machine has: on the processor nothing would be refused.
    with pytest.raises(InputError, match="^device 'cuda:99' was requested"):
        online(device="cuda:99")


# -- collecting and training in one call ---------------------------------------

SHORT = Recipe(epochs=2, learning_rate=0.05, batch_size=20, shift=0)


class Linear(nn.Module):
    """A module of one's own, which takes floats."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3 * SIDE * SIDE, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.flatten(1))


@pytest.mark.parametrize("reward", ["certainty", "all"])
def test_called_it_learns_meanwhile_and_trains_afresh(tmp_path, monkeypatch, reward):
    """What is asked and what comes out is that of collecting with an online copy, and then training what was given."""
    recipes, module = [], Linear()
    before = deepcopy(module)
    monkeypatch.setattr(adaptive, "fit", lambda *given, **options: recipes.append(given[3]) or fit(*given, **options))
    attack = AdaptiveKnockoff(budget=40, reward=reward, seed=2, clusters=2)
    api = PredictionAPI(linear_victim(), budget=40)
    found = attack(remote(api), POOL, surrogate=module, recipe=SHORT, keep=tmp_path / "t.db", progress=False)
    assert api.usage("attacker").remaining == 0
    assert recipes == [replace(ONLINE, learning_rate=0.1 * ONLINE.learning_rate)] * (4 if reward == "all" else 0)
    trainer = Trainer(network=before, recipe=SHORT, seed=2)
    transfer = attack.collect(PredictionAPI(linear_victim()), POOL, trainer=trainer)
    assert load(tmp_path / "t.db").indices.tolist() == transfer.indices.tolist()
    apart = attack.train(transfer, POOL, trainer)
    assert torch.equal(found.logits(POOL.images), predict(apart, POOL.images))
    assert torch.equal(module.fc.weight, before.fc.weight) and found.classes == linear_victim().classes


@pytest.mark.parametrize("missing", ["query", "classes", "granularity", "fingerprint"])
@pytest.mark.parametrize("reward", ["certainty", "all"])
def test_what_an_api_lacks_is_named_before_anything_is_asked(missing, reward):
    near = PredictionAPI(linear_victim())
    attack, far = AdaptiveKnockoff(budget=40, reward=reward), remote(near, without=missing)
    for run in (partial(attack, surrogate="tiny", backbone=None), partial(attack.collect, trainer=TINY)):
        with pytest.raises(InputError, match=f"^the API is a SimpleNamespace without '{missing}': give the object one"):
            run(far, POOL)
    assert near.usage("attacker").queries == 0


# -- what is denied or refused ---------------------------------------------------


class Denier:
    """Denies every second image."""

    fingerprint = "denier"

    def detect(self, images):
        return torch.arange(len(images)) % 2 == 0

    def answer(self, probabilities, detected, images):
        return probabilities.masked_fill(detected[:, None], torch.nan)


def test_denied_answers_earn_and_teach_nothing(tmp_path, monkeypatch, fixed):
    steps, update = [], Hierarchy.update
    monkeypatch.setattr(Hierarchy, "update", lambda policy, *step: steps.append(step[1]) or update(policy, *step))
    api = PredictionAPI(linear_victim(), detector=Denier(), policy=Denier())
    pool = ImageSet("pool", noise(400), torch.arange(400) % 4, tuple("abcd"))  # so that no class runs dry
    transfer = collect(tmp_path / "t", pool=pool, api=api, reward="loss")
    assert isinstance(transfer.answers, Answers)
    assert transfer.answers.denied.tolist() == [True, False] * 20
    assert fixed.seen == 16
    # A surrogate that says a tenth each: log 10, whatever the answer, of every second image.
    assert steps == pytest.approx([np.log(10) / 2] * 4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pool": POOL.unlabeled()}, "has no labels: the adaptive strategy needs them"),
        ({"budget": 61}, "budget is 61, but the pool holds 60"),
    ],
)
def test_what_cannot_be_collected_charges_nothing(tmp_path, changes, words):
    api = PredictionAPI(linear_victim())
    with pytest.raises(InputError, match=words):
        collect(tmp_path / "t", api=api, **changes)
    assert api.usage("attacker").queries == 0
    assert not (tmp_path / "t").exists()


def test_unknown_settings_are_refused():
    with pytest.raises(InputError, match="unknown reward 'surprise': use one of certainty, diversity, loss, all"):
        AdaptiveKnockoff(budget=10, reward="surprise")
    for name in ("batch", "window", "clusters"):
        with pytest.raises(InputError, match=f"^{name} is 0: expected a whole number of at least 1$"):
            AdaptiveKnockoff(budget=10, **{name: 0})


@pytest.mark.parametrize("options", [{"reward": "loss", "clusters": 1}, {"reward": "certainty"}])
def test_without_a_trainer_the_copy_of_a_call_learns_along_the_way(options):
    attack, found = AdaptiveKnockoff(budget=10, seed=4, **options), []
    for trainer in (None, attack.trainer()):
        found.append(attack.collect(PredictionAPI(linear_victim()), POOL, trainer=trainer))
    assert torch.equal(found[0].indices, found[1].indices)


def test_what_an_adaptive_attack_is_unless_told_otherwise():
    settings = {"budget": 10, "seed": 0, "batch": 8, "fill": "even", "client": "attacker"}
    attack = AdaptiveKnockoff(budget=10)
    assert vars(attack) == settings | {"reward": "all", "window": 25, "clusters": 30}
    assert attack.strategy == "adaptive-all, window 25, 30 clusters"
    online = {"epochs": 1, "learning_rate": 0.05, "batch_size": 128, "weight_decay": 0.0, "shift": 0}
    assert online.items() <= vars(ONLINE).items() and ONLINE.schedule == "cosine"


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"reward": "diversity"}, "'adaptive-certainty, window 25, 2 clusters' instead of 'adaptive-diversity, window"),
        ({"window": 9}, "window 25, 2 clusters' instead of 'adaptive-certainty, window 9, 2 clusters'"),
        ({"clusters": 3}, "2 clusters' instead of 'adaptive-certainty, window 25, 3 clusters'"),
    ],
)
def test_a_file_of_another_strategy_is_refused(tmp_path, other, words):
    collect(tmp_path / "t", reward="certainty")
    with pytest.raises(InputError, match=f"another strategy, .*{words}"):
        collect(tmp_path / "t", **{"reward": "certainty"} | other)


def test_a_file_of_another_surrogate_is_refused(tmp_path):
    """Its choices differ after some batches, so the answers held would go to the wrong images."""
    path, api = tmp_path / "t", PredictionAPI(linear_victim())
    options = {"reward": "loss", "batch": 1, "window": 4}
    collect(path, **options)
    forget(path, 30)
    held = content(path)
    with pytest.raises(InputError, match="t holds other queries than this attack sends, as if from another surrogate"):
        collect(path, trainer=replace(TINY, seed=1), api=api, **options)
    assert content(path) == held
    assert api.usage("attacker").queries == 0
