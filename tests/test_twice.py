"""The attacker that asks twice: what it asks, how it tells a shuffled answer, and what it learns from."""

import pytest
import torch
from linear_victim import SIDE, linear_victim, noise

from extractlib import metrics
from extractlib.api.service import PredictionAPI
from extractlib.attacks import Knockoff, TwiceKnockoff
from extractlib.data.images import ImageSet
from extractlib.defenses.policies import Shuffle
from extractlib.errors import InputError, ResultWarning
from extractlib.models.fitted import Trainer
from extractlib.models.training import Recipe

POOL = ImageSet("pool", noise(60), None, (), "pool of 60")
ATTACK = TwiceKnockoff(budget=40, seed=2, batch=16)
TRAINER = Trainer(network="tiny", recipe=Recipe(epochs=1, learning_rate=0.1, batch_size=10, shift=0), seed=0)


class Flat:
    """Smooth images, on which a pixel's move changes little, and a detector of those whose number is even."""

    fingerprint = "even"

    @staticmethod
    def pool() -> ImageSet:
        levels = torch.arange(60, dtype=torch.uint8) * 4
        return ImageSet("flat", levels.view(-1, 1, 1, 1).expand(-1, 3, SIDE, SIDE).contiguous(), None, (), "flat")

    def detect(self, images):
        return images[:, 0, 0, 0] // 4 % 2 == 0


def test_pairs_are_drawn_images_and_the_same_moved_by_a_pixel():
    pairs = ATTACK.asked(POOL)
    drawn = POOL.images[Knockoff(budget=20, seed=2).indices(60)]
    assert len(pairs) == 40 and torch.equal(pairs.images[:20], drawn)
    assert (pairs.name, pairs.labels, pairs.classes) == ("pool, twice", None, ())
    assert torch.equal(pairs.images[20:, :, :, 1:], drawn[:, :, :, :-1])
    assert torch.equal(pairs.images[20:, :, :, 0], drawn[:, :, :, 0])
    assert (
        pairs.fingerprint == ATTACK.asked(POOL).fingerprint != TwiceKnockoff(budget=40, seed=3).asked(POOL).fingerprint
    )


def test_pairs_are_consistent_up_to_one_half_unless_told_otherwise():
    assert TwiceKnockoff(budget=2).tolerance == 0.5


def test_each_pair_is_charged_twice_and_disagrees_by_half_the_l1_distance():
    api = PredictionAPI(linear_victim(), budget=40)
    transfer = ATTACK.collect(api, POOL)
    assert sorted(transfer.indices.tolist()) == list(range(40)) and api.usage("attacker").remaining == 0
    answers = linear_victim().logits(ATTACK.asked(POOL).images).softmax(1).detach()
    expected = (answers[:20] - answers[20:]).abs().sum(1) / 2
    torch.testing.assert_close(ATTACK.disagreement(transfer), expected, rtol=0, atol=2e-3)


def test_disagreement_finds_the_shuffled_answers():
    """Of flat images a move changes nothing: a shuffled answer differs from its pair's, an honest one does not."""
    pool, api = Flat.pool(), PredictionAPI(linear_victim(), detector=Flat(), policy=Shuffle(b"secret"))
    found = ATTACK.disagreement(ATTACK.collect(api, pool))
    shuffled = Flat().detect(ATTACK.asked(pool).images[:20])
    assert 0 < int(shuffled.sum()) < 20
    # A moved flat image is the same image, and gets the same permutation: nothing disagrees.
    assert found.max() < 1e-3
    # With a gradient from left to right the moved image is another one.
    steps = torch.arange(SIDE, dtype=torch.uint8)
    pool = ImageSet("slope", (pool.images + steps).contiguous(), None, (), "slope")
    found = ATTACK.disagreement(ATTACK.collect(api, pool))
    shuffled = Flat().detect(ATTACK.asked(pool).images[:20])
    assert metrics.auroc(found[~shuffled], found[shuffled]) > 0.9


def test_only_consistent_pairs_teach(monkeypatch):
    taught = {}
    monkeypatch.setattr(
        "extractlib.models.fitted.fit",
        lambda model, images, targets, recipe, **options: taught.update(images=images, targets=targets) or model,
    )
    transfer = ATTACK.collect(PredictionAPI(linear_victim()), POOL)
    apart = ATTACK.disagreement(transfer)
    middle = apart.sort().values[9].item()
    attack = TwiceKnockoff(budget=40, seed=2, batch=16, tolerance=middle)
    attack.train(transfer, POOL, TRAINER)
    kept = [index for index in transfer.indices.tolist() if apart[index % 20] <= middle]
    assert len(kept) == 20  # both images of ten pairs
    assert torch.equal(taught["images"], attack.asked(POOL).images[kept])
    places = [transfer.indices.tolist().index(index) for index in kept]
    assert torch.equal(taught["targets"], transfer.answers[torch.tensor(places)].targets(10))


class Denier:
    fingerprint = "denier"

    def detect(self, images):
        return images[:, 0, 0, 0] > 127

    def answer(self, probabilities, detected, images):
        return probabilities.masked_fill(detected[:, None], torch.nan)


def test_a_denied_answer_is_not_consistent():
    transfer = ATTACK.collect(PredictionAPI(linear_victim(), detector=Denier(), policy=Denier()), POOL)
    denied = Denier().detect(ATTACK.asked(POOL).images).view(2, 20).any(0)
    assert 0 < int(denied.sum()) < 20
    assert (ATTACK.disagreement(transfer) == 1).tolist() == denied.tolist()


def test_called_it_resumes_and_trains(tmp_path):
    victim = linear_victim()
    for _ in range(2):
        options = {"surrogate": "tiny", "recipe": TRAINER.recipe, "backbone": None, "keep": tmp_path / "t.db"}
        found = ATTACK(PredictionAPI(victim), POOL, progress=False, **options)
    assert victim.calls == [16, 16, 8]
    assert found.logits(POOL.images).shape == (60, 10)


def test_without_a_consistent_pair_the_surrogate_is_told_to_be_untrained():
    attack = TwiceKnockoff(budget=40, seed=2, tolerance=0)
    options = {"surrogate": "tiny", "recipe": TRAINER.recipe, "backbone": None, "progress": False}
    words = "^0 of 20 pairs are consistent, but at least 1 is needed; raise the tolerance, 0, .* is untrained$"
    with pytest.warns(ResultWarning, match=words):
        attack(PredictionAPI(linear_victim()), POOL, **options)


def test_a_pool_is_too_small_for_half_the_budget():
    api = PredictionAPI(linear_victim())
    words = "^budget is 122 for 61 images, but the pool holds 60: query at most 120 times$"
    with pytest.raises(InputError, match=words):
        TwiceKnockoff(budget=122).collect(api, POOL)
    assert api.usage("attacker").queries == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"budget": 41}, "^budget is 41: expected an even number"),
        ({"budget": 40, "tolerance": 1.5}, "^tolerance is 1.5: expected a number from 0 to 1"),
    ],
)
def test_settings_that_cannot_be(options, words):
    with pytest.raises(InputError, match=words):
        TwiceKnockoff(**options)
