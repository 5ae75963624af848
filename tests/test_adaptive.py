"""The adaptive strategy: the bandit's step by hand, what it finds, and that any kill is survived."""

import numpy as np
import pytest
import torch
from linear_victim import SIDE, linear_victim, noise

from extractlib.api.service import Answers, PredictionAPI
from extractlib.attacks.adaptive import AdaptiveKnockoff, Bandit, Judge, OnlineSurrogate, Stock
from extractlib.attacks.transfer import load
from extractlib.data.images import ImageSet
from extractlib.errors import InputError

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


def test_stock_gives_each_image_once_and_in_its_class():
    labels = torch.tensor([0] * 5 + [1] * 50 + [2] * 3)
    stock, bandit = Stock(labels, 3, np.random.default_rng(0)), Bandit(3)
    drawn = [stock.draw(count, bandit) for count in (20, 20, 18)]
    classes, indices = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    assert sorted(indices.tolist()) == list(range(58))
    assert (labels.numpy()[indices] == classes).all()
    assert stock.left.tolist() == [0, 0, 0]
    # The first chunk asked the small classes until they were dry: both with chance 1 - (2/3)^20 and more.
    assert set(classes[:20].tolist()) == {0, 1, 2}


# -- rewards -------------------------------------------------------------------

TARGETS = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.5, 0.0]])


def test_certainty_and_diversity_by_hand():
    assert Judge("certainty", None).rewards(noise(2), TARGETS) == pytest.approx([0.5, 0.0])
    judge = Judge("diversity", None)
    # Before the first answer the mean is 0; before the second it is the first: max(0, .5 - .7) + max(0, .5 - .2) = .3.
    assert judge.rewards(noise(2), TARGETS) == pytest.approx([1.0, 0.3])
    # The mean of both is (.6, .35, .05): .1 - .6 is below 0, .8 - .35 and .1 - .05 are above.
    assert judge.rewards(noise(1), torch.tensor([[0.1, 0.8, 0.1]])) == pytest.approx([0.5])


def test_loss_by_hand():
    # A learner that says a third each: log 3, whatever the answer.
    assert Judge("loss", Fixed(3)).rewards(noise(2), TARGETS) == pytest.approx([np.log(3)] * 2)


def test_all_is_the_mean_of_standardised_rewards():
    # Certainty 0.5 and 0, diversity 1 and 0.3: each one standard deviation above and below its mean. Loss varies by
    # rounding alone.
    assert Judge("all", Fixed(3)).rewards(noise(2), TARGETS) == pytest.approx([2 / 3, -2 / 3], abs=5e-3)


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


@pytest.mark.parametrize("cut", ["frame", "torn"])
@pytest.mark.parametrize("reward", ["certainty", "all"])
def test_a_killed_collection_goes_on_and_ends_as_an_unbroken_one(tmp_path, cut, reward):
    whole, part = tmp_path / "whole", tmp_path / "part"
    collect(whole, reward=reward, learner=online())
    content = whole.read_bytes()
    header = load(whole).header
    frame = 8 * header.record.itemsize + 8
    keep = len(header.line) + 3 * frame + (0 if cut == "frame" else 17)
    part.write_bytes(content[:keep])
    api = PredictionAPI(linear_victim(), budget=16)  # what is left: two frames
    collect(part, reward=reward, learner=online(), api=api)
    assert part.read_bytes() == content
    assert api.usage("attacker").queries == 16


def test_what_was_charged_before_the_kill_is_not_charged_again(tmp_path):
    """The API has answered five requests and the file holds two frames, a torn one, or nothing at all."""
    api, path = PredictionAPI(linear_victim(), budget=40), tmp_path / "t"
    header = collect(path, learner=online(), api=api).header
    content, two_frames = path.read_bytes(), len(header.line) + 2 * (8 * header.record.itemsize + 8)
    for length in (two_frames, two_frames + 17, 0):
        path.write_bytes(content[:length])
        collect(path, learner=online(), api=api)
        assert path.read_bytes() == content
        assert api.usage("attacker").queries == 40


def online() -> OnlineSurrogate:
    return OnlineSurrogate(network="tiny", classes=10, seed=0)


def test_the_online_surrogate_learns():
    surrogate, images = online(), noise(64)
    targets = torch.eye(10)[torch.zeros(64, dtype=torch.int64)]
    before = surrogate.probabilities(images)[:, 0].mean()
    for _ in range(5):
        surrogate.update(images, targets)
    assert surrogate.probabilities(images)[:, 0].mean() > before + 0.05


def test_the_online_surrogate_learns_on_the_device_it_is_given():
    # A GPU that no machine has: on the processor nothing would be refused.
    surrogate = OnlineSurrogate(network="tiny", classes=10, seed=0, device="cuda:99")
    with pytest.raises(InputError, match="device 'cuda:99' is asked for"):
        surrogate.update(noise(64), torch.eye(10)[torch.zeros(64, dtype=torch.int64)])


class Denier:
    """Denies every second image."""

    fingerprint = "denier"

    def detect(self, images):
        return torch.arange(len(images)) % 2 == 0

    def answer(self, probabilities, detected, images):
        return probabilities.masked_fill(detected[:, None], torch.nan)


def test_denied_answers_teach_nothing(tmp_path):
    learner = Fixed()
    api = PredictionAPI(linear_victim(), detector=Denier(), policy=Denier())
    transfer = collect(tmp_path / "t", api=api, learner=learner)
    assert isinstance(transfer.answers, Answers)
    assert transfer.answers.denied.tolist() == [True, False] * 20
    assert learner.seen == 20


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
    whole, path, api = tmp_path / "whole", tmp_path / "t", PredictionAPI(linear_victim())
    header = collect(whole, learner=online()).header
    content = whole.read_bytes()[: len(header.line) + 3 * (8 * header.record.itemsize + 8)]
    path.write_bytes(content)
    other = OnlineSurrogate(network="tiny", classes=10, seed=1)
    with pytest.raises(InputError, match="t was collected with another learner: give that, or name another file$"):
        collect(path, learner=other, api=api)
    assert path.read_bytes() == content
    assert api.usage("attacker").queries == 0
