"""Perturbations: their formulas by hand, what they leave alone, and how a strength is chosen."""

from types import SimpleNamespace

import pytest
import torch
from linear_victim import SIDE, linear_victim, noise

from extractlib.api.service import PredictionAPI
from extractlib.data.images import ImageSet
from extractlib.defenses import perturbations
from extractlib.defenses.detectors import Everything
from extractlib.defenses.perturbations import (
    AdaptiveMisinformation,
    ReverseSigmoid,
    choose_strength,
    misinformation_model,
)
from extractlib.defenses.policies import Shuffle, Unchanged
from extractlib.errors import InputError
from extractlib.models.fitted import Trainer
from extractlib.models.training import Recipe
from extractlib.store import Store

IMAGES = noise(4)
ALL = torch.ones(4, dtype=torch.bool)


def test_reverse_sigmoid_by_hand():
    """With γ = 1 it is y - β (y - 1/2): 0.8 and 0.2 at β = 0.5 become 0.65 and 0.35."""
    answers = torch.tensor([[0.8, 0.2]])
    shown = ReverseSigmoid(strength=0.5, slope=1.0).answer(answers, ALL[:1], IMAGES[:1])
    assert shown[0].tolist() == pytest.approx([0.65, 0.35])
    # γ = 2: S(2 log 4) = 16 / 17, so 0.8 - 0.5 (16/17 - 1/2) and 0.2 + 0.5 (1/2 - 1/17).
    steep = ReverseSigmoid(strength=0.5, slope=2.0).answer(answers, ALL[:1], IMAGES[:1])
    assert steep[0].tolist() == pytest.approx([0.8 - 7.5 / 34, 0.2 + 7.5 / 34])
    # Of three classes the sum is brought back to 1: (0.6, 0.3, 0.1) - 0.5 (0.1, -0.2, -0.4) = (0.55, 0.4, 0.3).
    three = ReverseSigmoid(strength=0.5, slope=1.0).answer(torch.tensor([[0.6, 0.3, 0.1]]), ALL[:1], IMAGES[:1])
    assert three[0].tolist() == pytest.approx([0.55 / 1.25, 0.4 / 1.25, 0.3 / 1.25])
    none = ReverseSigmoid(strength=0.0).answer(answers, ALL[:1], IMAGES[:1])
    assert none[0].tolist() == pytest.approx([0.8, 0.2])
    # A certain answer counts as one of 1 - 1e-7: S(0.2 · 16) is 0.96.
    certain = ReverseSigmoid(strength=0.5).answer(torch.tensor([[1.0, 0.0]]), ALL[:1], IMAGES[:1])
    assert certain[0].tolist() == pytest.approx([0.77, 0.23], abs=2e-3)
    far = ReverseSigmoid(strength=3.0, slope=5.0).answer(torch.eye(3), ALL[:3], IMAGES[:3])
    assert (far >= 0).all() and far.sum(1).tolist() == pytest.approx([1.0] * 3)


def wrong(answer: list[float]) -> SimpleNamespace:
    """Return a model that answers always the same."""
    logits = torch.tensor(answer).log()
    return SimpleNamespace(logits=lambda images: logits.expand(len(images), -1), fingerprint=repr(answer))


def test_adaptive_misinformation_by_hand():
    answers = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3]])
    policy = AdaptiveMisinformation(strength=0.7, wrong=wrong([0.2, 0.8]))
    shown = policy.answer(answers, ALL[:3], IMAGES[:3])
    # Surer than 0.7: true. Less sure: the wrong model's. Just as sure: half of each.
    assert shown[0].tolist() == pytest.approx([0.9, 0.1])
    assert shown[1].tolist() == pytest.approx([0.2, 0.8])
    assert shown[2].tolist() == pytest.approx([0.45, 0.55], abs=1e-3)
    # With ν = 1 and τ = 0.7: S(-0.2) = 0.450166 of the wrong answer for the first.
    soft = AdaptiveMisinformation(strength=0.7, wrong=wrong([0.2, 0.8]), sharpness=1.0)
    expected = (1 - 0.450166) * 0.9 + 0.450166 * 0.2
    assert soft.answer(answers, ALL[:3], IMAGES[:3])[0, 0].item() == pytest.approx(expected, abs=1e-5)


POLICIES = {
    "reverse sigmoid": lambda **options: ReverseSigmoid(**{"strength": 0.5} | options),
    "adaptive misinformation": lambda **options: AdaptiveMisinformation(
        **{"strength": 0.9, "wrong": wrong([0.1] * 10)} | options
    ),
}


@pytest.mark.parametrize("name", POLICIES)
def test_they_stand_behind_an_api_and_alter_what_is_caught_only(name):
    policy = POLICIES[name]()
    plain = PredictionAPI(linear_victim()).query(IMAGES).probabilities
    behind = PredictionAPI(linear_victim(), detector=Everything(), policy=policy).query(IMAGES).probabilities
    assert ((behind - plain).abs().sum(1) > 1e-3).all()
    torch.testing.assert_close(behind.sum(1), torch.ones(4))
    detected = torch.tensor([True, False, True, False])
    shown = policy.answer(plain, detected, IMAGES)
    assert torch.equal(shown[~detected], plain[~detected]) and not torch.equal(shown[detected], plain[detected])
    assert policy.leaks


def test_whatever_differs_makes_another_policy():
    made = [
        POLICIES["reverse sigmoid"](),
        POLICIES["reverse sigmoid"](strength=0.6),
        POLICIES["reverse sigmoid"](slope=0.3),
        POLICIES["adaptive misinformation"](),
        POLICIES["adaptive misinformation"](strength=0.8),
        POLICIES["adaptive misinformation"](sharpness=10.0),
        POLICIES["adaptive misinformation"](wrong=wrong([0.2] * 5)),
        Unchanged(),
    ]
    assert len({policy.fingerprint for policy in made}) == len(made)


def test_what_they_are_unless_told_otherwise():
    assert vars(ReverseSigmoid(strength=0.5)) == {"strength": 0.5, "slope": 0.2}
    assert AdaptiveMisinformation(strength=0.5, wrong=wrong([1.0])).sharpness == 1_000


def test_the_wrong_model_is_trained_anew_where_its_version_is_another(tmp_path, monkeypatch):
    own, targets = ImageSet("own", noise(3), torch.arange(3), tuple("abc"), "own"), []

    def fit(model, images, wanted, *given, **options):
        targets.append(wanted.tolist())
        return model

    monkeypatch.setattr("extractlib.models.fitted.fit", fit)
    for number in (1, 1, 2):
        monkeypatch.setattr(perturbations, "versions", lambda name, number=number: {name: number})
        recipe = Recipe(epochs=1, learning_rate=0.1)
        misinformation_model(own, Trainer(network="tiny", recipe=recipe, seed=0, store=Store(tmp_path)))
    assert targets == [[[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]]] * 2


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("reverse sigmoid", {"strength": -0.1}),
        ("reverse sigmoid", {"strength": float("nan")}),
        ("reverse sigmoid", {"slope": 0.0}),
        ("adaptive misinformation", {"strength": 1.1}),
        ("adaptive misinformation", {"sharpness": 0.0}),
    ],
)
def test_settings_that_cannot_be(name, options):
    with pytest.raises(InputError, match="^strength is .* above 0$"):
        POLICIES[name](**options)


def test_the_wrong_model_learns_to_be_wrong(tmp_path):
    labels = torch.arange(90) % 3
    images = (noise(90) // 8 + (labels * 100).byte().view(-1, 1, 1, 1)).contiguous()
    own = ImageSet("own", images, labels, tuple("abc"))
    recipe = Recipe(epochs=10, learning_rate=0.1, batch_size=15, shift=0)
    model = misinformation_model(own, Trainer(network="tiny", recipe=recipe, seed=0))
    assert (model.image_shape, model.classes, model.name) == ((3, SIDE, SIDE), tuple("abc"), "misinformation")
    answers = model.logits(images).softmax(1)
    assert (answers.argmax(1) == labels).double().mean() < 0.1
    assert answers.gather(1, labels[:, None]).mean() < 0.1
    with pytest.raises(InputError, match="own has no labels: the model that should be wrong needs them"):
        misinformation_model(own.unlabeled(), Trainer(network="tiny", recipe=recipe, seed=0))


# -- the strength --------------------------------------------------------------------

SURE = torch.tensor([[0.8, 0.2], [0.8, 0.2], [0.6, 0.4], [0.2, 0.8]])
HONEST = ImageSet("honest", IMAGES, torch.tensor([0, 0, 0, 1]), ("a", "b"))


class Turned(Unchanged):
    """Of what is caught both probabilities change places."""

    def _instead(self, probabilities, images):
        return probabilities.flip(1)


def choose(strengths, *, caught: int, slack: float = 0.005, make=None, images=HONEST) -> float:
    """Beside a policy that turns the first answers over: each costs an L1 change of 1.2 and a right label."""
    return choose_strength(
        make or (lambda strength: ReverseSigmoid(strength=strength, slope=1.0)),
        strengths,
        reference=Turned(),
        detected=torch.arange(4) < caught,
        probabilities=SURE,
        images=images,
        slack=slack,
    )


def test_the_strength_is_the_greatest_whose_change_is_no_larger():
    # β changes an answer y by 2 β |y - 1/2|: of these four 0.6, 0.6, 0.2 and 0.6 times β, in the mean 0.5 β.
    assert choose([0.1, 0.7, 0.5, 0.55], caught=1) == 0.55  # 0.5 β at most 1.2 / 4 = 0.3
    assert choose([0.1, 0.65], caught=1) == 0.1
    with pytest.raises(InputError, match="none of the strengths changes answers by at most 0: add a smaller one"):
        choose([0.1], caught=0)
    with pytest.raises(InputError, match="^honest has no labels: give labeled images$"):
        choose([0.1], caught=1, images=HONEST.unlabeled())


def test_the_strength_loses_no_more_accuracy_than_that_and_the_slack():
    """Below the strength the answer is the other class's: at 0.7 the third image is lost, at 0.9 all of them."""

    def make(strength):
        return AdaptiveMisinformation(strength=strength, wrong=wrong([0.45, 0.55]))

    # Turning over one of four loses one, with a change of 0.3; at 0.7 the third is lost with a change of 0.3 / 4.
    assert choose([0.5, 0.7], caught=1, make=make) == 0.7

    class Mild(Turned):
        def _instead(self, probabilities, images):
            return torch.full_like(probabilities, 0.5).index_fill_(1, torch.tensor([0]), 0.51)

    options = {"probabilities": SURE, "images": HONEST, "detected": torch.arange(4) < 2}
    # The reference loses nothing: 0.7 loses a quarter, which only so much slack allows.
    assert choose_strength(make, [0.5, 0.7], reference=Mild(), **options) == 0.5
    assert choose_strength(make, [0.5, 0.7], reference=Mild(), slack=0.25, **options) == 0.7


def test_beside_shuffling_on_a_victims_answers():
    images = noise(200, seed=3)
    answers = linear_victim().logits(images).softmax(1).detach()
    honest = ImageSet("honest", images, answers.argmax(1), tuple("0123456789"))
    caught = torch.arange(200) < 10
    strengths = [number / 50 for number in range(50)]
    chosen = choose_strength(
        lambda strength: ReverseSigmoid(strength=strength),
        strengths,
        reference=Shuffle(b"secret"),
        detected=caught,
        probabilities=answers,
        images=honest,
    )

    def change(policy, which):
        return (policy.answer(answers, which, images) - answers).abs().sum(1).mean()

    limit, every = change(Shuffle(b"secret"), caught), torch.ones(200, dtype=torch.bool)
    assert 0 < chosen < strengths[-1]
    assert change(ReverseSigmoid(strength=chosen), every) <= limit
    assert change(ReverseSigmoid(strength=chosen + 1 / 50), every) > limit
