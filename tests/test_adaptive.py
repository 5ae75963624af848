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
from extractlib.attacks.adaptive import ONLINE, AdaptiveKnockoff, Bandit, ClassSampler, OnlineSurrogate, Reward
from extractlib.attacks.transfer import load
from extractlib.data.images import ImageSet
from extractlib.errors import InputError
from extractlib.models.fitted import Trainer
from extractlib.models.training import Recipe, fit, predict

POOL = ImageSet("pool", noise(60), torch.arange(60) % 4, tuple("abcd"), "pool of 60")


class Fixed:
    """A learner that answers the same always and counts its updates."""

    def __init__(self, classes: int = 10):
        self.classes, self.seen = classes, 0

    def probabilities(self, images):
        return torch.full((len(images), self.classes), 1 / self.classes)

    def update(self, images, targets):
        self.seen += len(images)


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


def test_the_sampler_gives_each_image_once_and_in_its_class():
    labels = torch.tensor([0] * 5 + [1] * 50 + [2] * 3)
    sampler, bandit = ClassSampler(labels, 3, np.random.default_rng(0)), Bandit(3)
    drawn = [sampler.draw(count, bandit) for count in (20, 20, 18)]
    classes, indices = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    assert sorted(indices.tolist()) == list(range(58))
    assert (labels.numpy()[indices] == classes).all()
    assert sampler.left.tolist() == [0, 0, 0]
    # The first chunk asked the small classes until they were dry: both with chance 1 - (2/3)^20 and more.
    assert set(classes[:20].tolist()) == {0, 1, 2}


def test_the_sampler_follows_its_generator_within_a_class_too():
    labels, bandit = torch.zeros(50, dtype=torch.int64), Bandit(1)
    draws = [ClassSampler(labels, 1, np.random.default_rng(seed)).draw(50, bandit)[1].tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert sorted(draws[0]) == sorted(draws[2]) == list(range(50)) != draws[0]


def test_the_sampler_draws_classes_by_the_policy():
    """Of 4,000 draws at 3 to 1, the standard deviation of the share is 0.007."""
    labels = torch.arange(20_000) % 2
    bandit = Bandit(2)
    bandit.preferences = np.array([np.log(3.0), 0.0])
    classes, _ = ClassSampler(labels, 2, np.random.default_rng(0)).draw(4_000, bandit)
    assert abs((classes == 0).mean() - 0.75) < 0.03


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


def test_all_is_the_mean_of_standardized_rewards():
    # Certainty 0.5 and 0, diversity 1 and 0.3: each one standard deviation above and below its mean. Loss varies by
    # rounding alone.
    assert Reward("all", Fixed(3)).of(noise(2), TARGETS) == pytest.approx([2 / 3, -2 / 3], abs=5e-3)


# -- the attack ----------------------------------------------------------------


def collect(path, *, pool=POOL, budget=40, learner=None, api=None, **options):
    api = api or PredictionAPI(linear_victim())
    attack = AdaptiveKnockoff(budget=budget, chunk=8, **options)
    return attack.collect(api, pool, path, learner=learner or Fixed())


@pytest.mark.parametrize("reward", ["certainty", "diversity", "loss", "all"])
def test_no_image_is_asked_twice_and_the_whole_pool_can_be(tmp_path, reward):
    learner = Fixed()
    transfer = collect(tmp_path / "t", budget=60, reward=reward, learner=learner)
    assert sorted(transfer.indices.tolist()) == list(range(60))
    assert learner.seen == (60 if reward in ("loss", "all") else 0)
    expected = linear_victim().logits(POOL.images[transfer.indices]).softmax(1)
    assert torch.equal(transfer.answers.probabilities, expected.detach().half().float())


@pytest.mark.parametrize("reward", ["certainty", "all"])
def test_the_choice_follows_the_seed(tmp_path, reward):
    chosen = [collect(None, reward=reward, seed=seed).indices.tolist() for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert chosen[0][:8] != chosen[2][:8]  # from the first chunk on, before any answer


def test_the_bandit_takes_a_step_for_each_answer_in_its_order(monkeypatch):
    """Against its own record: class and reward of each query, one by one, as they were asked."""
    steps, policies = [], []
    update, draw = Bandit.update, ClassSampler.draw
    monkeypatch.setattr(Bandit, "update", lambda bandit, *step: steps.append(step) or update(bandit, *step))
    monkeypatch.setattr(
        ClassSampler, "draw", lambda *arguments: policies.append(arguments[2].policy()) or draw(*arguments)
    )
    transfer = collect(None, reward="certainty")
    assert [chosen for chosen, _ in steps] == POOL.labels[transfer.indices].tolist()
    first, second = transfer.answers.targets(10).double().topk(2).values.T
    assert [reward for _, reward in steps] == pytest.approx((first - second).tolist())
    # The policy of a chunk is that after all steps before it.
    bandit = Bandit(4)
    assert policies[0] == pytest.approx([0.25] * 4)
    for chunk, start in enumerate(range(0, 32, 8), start=1):
        for step in steps[start : start + 8]:
            update(bandit, *step)
        assert policies[chunk] == pytest.approx(bandit.policy())


def test_the_learner_is_asked_before_it_learns(monkeypatch):
    """A chunk's loss is that of a surrogate which has not seen the chunk; it learns the stored answers, in order."""
    told = []

    class Told(Fixed):
        def probabilities(self, images):
            told.append(("asked", len(images)))
            return super().probabilities(images)

        def update(self, images, targets):
            told.append(("taught", images, targets))

    transfer = collect(None, reward="loss", learner=Told())
    assert [entry[0] for entry in told] == ["asked", "taught"] * 5
    images = torch.cat([entry[1] for entry in told[1::2]])
    assert torch.equal(images, POOL.images[transfer.indices])
    targets = torch.cat([entry[2] for entry in told[1::2]])
    torch.testing.assert_close(targets, transfer.answers.targets(10), rtol=0, atol=0)


def test_a_smaller_budget_is_the_first_part(tmp_path):
    few, many = collect(tmp_path / "few", budget=19), collect(tmp_path / "many", budget=50)
    assert few.indices.tolist() == many.indices[:19].tolist()


def test_the_bandit_finds_the_class_that_pays(tmp_path):
    """Images of class 0 get certain answers, those of nine others flat ones."""
    labels = torch.arange(2_000) % 10
    images = torch.zeros(2_000, 3, SIDE, SIDE, dtype=torch.uint8)
    images[labels == 0] = 255
    pool = ImageSet("pool", images, labels, tuple("0123456789"), "ten")
    victim = linear_victim()
    with torch.no_grad():
        victim.weights[:, 1:] = 0
        victim.weights[:, 0] = 1
    attack = AdaptiveKnockoff(budget=200, chunk=10, reward="certainty")
    transfer = attack.collect(PredictionAPI(victim), pool, tmp_path / "t")
    late = labels[transfer.indices[100:]]
    # By chance it would be a tenth.
    assert (late == 0).double().mean() > 0.6


@pytest.mark.parametrize("reward", ["certainty", "all"])
def test_a_collection_that_was_cut_off_goes_on_and_ends_as_an_unbroken_one(tmp_path, reward):
    whole, part = tmp_path / "whole.db", tmp_path / "part.db"
    collect(whole, reward=reward, learner=online())
    with pytest.raises(BudgetExceeded):  # after three chunks of eight
        collect(part, reward=reward, learner=online(), api=PredictionAPI(linear_victim(), budget=24))
    assert len(load(part, partial=True)) == 24
    api = PredictionAPI(linear_victim(), budget=16)  # what is left: two chunks
    collect(part, reward=reward, learner=online(), api=api)
    assert content(part) == content(whole)
    assert api.usage("attacker").queries == 16


@pytest.mark.parametrize("chunks", [2, 0])
def test_what_was_charged_before_the_kill_is_not_charged_again(tmp_path, chunks):
    """The API has answered five requests and the file holds two chunks, or nothing at all."""
    api, path = PredictionAPI(linear_victim(), budget=40), tmp_path / "t.db"
    collect(path, learner=online(), api=api)
    whole = content(path)
    forget(path, chunks)
    collect(path, learner=online(), api=api)
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
    collect(folder / "t.db", learner=online(), api=PredictionAPI(VICTIM, budget=40, price=1.0, meter=meter))
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
    return OnlineSurrogate(Trainer(network="tiny", recipe=ONLINE, seed=seed, **changes), classes=10)


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


def test_the_online_surrogate_follows_the_recipe_and_the_seed():
    images, targets = noise(64), torch.eye(10)[torch.arange(64) % 10]

    def learned(recipe, seed=0):
        trainer = Trainer(network=Trainer(network="tiny", recipe=recipe, seed=0).build(10), recipe=recipe, seed=seed)
        surrogate = OnlineSurrogate(trainer, classes=10)
        surrogate.update(images, targets)
        return surrogate.probabilities(images)

    batches = replace(ONLINE, batch_size=8)
    assert torch.equal(learned(batches), learned(batches))
    assert not torch.allclose(learned(batches), learned(replace(batches, learning_rate=0.2)))
    assert not torch.allclose(learned(batches), learned(batches, seed=1))  # the order of the images


def test_the_online_surrogate_is_a_copy():
    module = Trainer(network="tiny", recipe=ONLINE, seed=0).build(10)
    before = deepcopy(module.state_dict())
    surrogate = OnlineSurrogate(Trainer(network=module, recipe=ONLINE, seed=0), classes=10)
    surrogate.update(noise(64), torch.eye(10)[torch.zeros(64, dtype=torch.int64)])
    assert all(map(torch.equal, module.state_dict().values(), before.values()))


def test_the_online_surrogate_is_refused_a_device_that_is_not_there():
    # A GPU that no machine has: on the processor nothing would be refused.
    with pytest.raises(InputError, match="^device 'cuda:99' is asked for"):
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
    attack = AdaptiveKnockoff(budget=40, chunk=8, reward=reward, seed=2)
    api = PredictionAPI(linear_victim(), budget=40)
    found = attack(remote(api), POOL, surrogate=module, recipe=SHORT, keep=tmp_path / "t.db", progress=False)
    assert api.usage("attacker").remaining == 0
    assert recipes == [ONLINE] * (5 if reward == "all" else 0)
    trainer = Trainer(network=before, recipe=SHORT, seed=2)
    learner = OnlineSurrogate(replace(trainer, recipe=ONLINE), classes=10) if reward == "all" else None
    transfer = attack.collect(PredictionAPI(linear_victim()), POOL, learner=learner)
    assert load(tmp_path / "t.db").indices.tolist() == transfer.indices.tolist()
    apart = attack.train(transfer, POOL, trainer)
    assert torch.equal(found.logits(POOL.images), predict(apart, POOL.images))
    assert found.model.module is module and found.classes == linear_victim().classes


@pytest.mark.parametrize("missing", ["query", "classes", "granularity", "fingerprint"])
@pytest.mark.parametrize("reward", ["certainty", "all"])
def test_what_an_api_lacks_is_named_before_anything_is_asked(missing, reward):
    near = PredictionAPI(linear_victim())
    attack, far = AdaptiveKnockoff(budget=40, reward=reward), remote(near, without=missing)
    for run in (partial(attack, surrogate="tiny", backbone=None), partial(attack.collect, learner=Fixed())):
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


def test_denied_answers_earn_and_teach_nothing(tmp_path, monkeypatch):
    learner, steps, update = Fixed(), [], Bandit.update
    monkeypatch.setattr(Bandit, "update", lambda bandit, *step: steps.append(step[1]) or update(bandit, *step))
    api = PredictionAPI(linear_victim(), detector=Denier(), policy=Denier())
    transfer = collect(tmp_path / "t", api=api, learner=learner, reward="loss")
    assert isinstance(transfer.answers, Answers)
    assert transfer.answers.denied.tolist() == [True, False] * 20
    assert learner.seen == 20
    # A learner that says a tenth each: log 10, whatever the answer.
    assert steps == pytest.approx([0.0, np.log(10)] * 20)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pool": POOL.unlabeled()}, "has no labels: the adaptive strategy needs them"),
        ({"budget": 61}, "budget is 61 and the pool holds 60"),
    ],
)
def test_what_cannot_be_collected_charges_nothing(tmp_path, changes, words):
    api = PredictionAPI(linear_victim())
    with pytest.raises(InputError, match=words):
        collect(tmp_path / "t", api=api, **changes)
    assert api.usage("attacker").queries == 0
    assert not (tmp_path / "t").exists()


def test_missing_learner_and_unknown_reward_are_refused(tmp_path):
    with pytest.raises(InputError, match="unknown reward 'surprise': use one of certainty, diversity, loss, all"):
        AdaptiveKnockoff(budget=10, reward="surprise")
    api = PredictionAPI(linear_victim())
    for reward in ("loss", "all"):
        with pytest.raises(InputError, match=f"^reward '{reward}' compares with a surrogate: give a learner$"):
            AdaptiveKnockoff(budget=10, reward=reward).collect(api, POOL, tmp_path / "t")
    assert api.usage("attacker").queries == 0
    assert not (tmp_path / "t").exists()


def test_a_file_of_another_strategy_is_refused(tmp_path):
    collect(tmp_path / "t", reward="certainty")
    with pytest.raises(InputError, match="another strategy, 'adaptive-certainty' and not 'adaptive-diversity'"):
        collect(tmp_path / "t", reward="diversity")


def test_a_file_of_another_learner_is_refused(tmp_path):
    """Its choices differ from the second chunk on, so the answers held would go to the wrong images."""
    path, api = tmp_path / "t", PredictionAPI(linear_victim())
    collect(path, learner=online())
    forget(path, 3)
    held = content(path)
    with pytest.raises(InputError, match="t was collected with another learner: give that, or name another file$"):
        collect(path, learner=online(seed=1), api=api)
    assert content(path) == held
    assert api.usage("attacker").queries == 0
