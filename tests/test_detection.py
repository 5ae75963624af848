"""Detectors: their scores against pytorch-ood's own and against hand-computed cases, and how they are set."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_ood.detector import ODIN, Mahalanobis

from extractlib import metrics
from extractlib.api.service import PredictionAPI
from extractlib.data.images import ImageSet
from extractlib.defenses.detectors import (
    BinaryDetector,
    MahalanobisDetector,
    OdinDetector,
    features_of,
    threshold_at,
    train_detector,
    tune,
)
from extractlib.defenses.policies import LabelOnly
from extractlib.errors import InputError
from extractlib.models import networks
from extractlib.models.training import Recipe
from extractlib.models.victims import Victim
from extractlib.store import Store


def flat(level: int, count: int, *, seed: int, classes: int = 3) -> ImageSet:
    """Return grey images of about one level, labelled in turn."""
    generator = torch.Generator().manual_seed(seed)
    images = (level + torch.randint(0, 30, (count, 3, 16, 16), generator=generator)).to(torch.uint8)
    names = tuple(f"class {number}" for number in range(classes))
    return ImageSet(f"level {level}", images, torch.arange(count) % classes, names, f"{level} {count} {seed}")


@pytest.fixture(scope="module")
def victim():
    model = networks.build("tiny", classes=3, seed=1).eval()
    return Victim("flat", model, ("a", "b", "c"), "flat victim", (3, 16, 16))


IMAGES = flat(100, 40, seed=5).images


# -- metrics ---------------------------------------------------------------------

BENIGN, STRANGERS = torch.tensor([0.1, 0.2, 0.2, 0.6]), torch.tensor([0.2, 0.5, 0.7])


def test_tpr_and_tnr_by_hand():
    # At 0.2 three of four benign scores are accepted, and two of three strangers are above it.
    assert metrics.tpr_tnr(BENIGN, STRANGERS, 0.2) == pytest.approx((3 / 4, 2 / 3))
    assert metrics.tpr_tnr(BENIGN, STRANGERS, math.inf) == (1, 0)
    assert metrics.tpr_tnr(BENIGN, STRANGERS, -1) == (0, 1)
    assert metrics.balanced_accuracy(0.75, 0.5) == 0.625


def test_auroc_by_hand():
    # Of twelve pairs: .2 is above one benign score and ties with two, .5 is above three, .7 above four.
    assert metrics.auroc(BENIGN, STRANGERS) == pytest.approx((1 + 2 * 0.5 + 3 + 4) / 12)


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=20),
    st.lists(st.integers(0, 9), min_size=1, max_size=20),
)
def test_auroc_of_swapped_sides_adds_up_to_one(first, second):
    first, second = torch.tensor(first).float(), torch.tensor(second).float()
    assert metrics.auroc(first, second) + metrics.auroc(second, first) == pytest.approx(1)
    pairs = [(b > a) + 0.5 * (b == a) for a in first.tolist() for b in second.tolist()]
    assert metrics.auroc(first, second) == pytest.approx(sum(pairs) / len(pairs))


def test_roc_curve_runs_from_nothing_accepted_to_everything():
    accepted, caught = metrics.roc_curve(BENIGN, STRANGERS, points=5)
    assert accepted.tolist() == [0, 0.25, 0.75, 0.75, 1]
    assert caught.tolist() == pytest.approx([1, 1, 2 / 3, 2 / 3, 0])


@pytest.mark.parametrize("bad", [torch.empty(0), torch.tensor([0.1, math.nan])])
def test_scores_that_are_none_are_refused(bad):
    for measure in (metrics.auroc, metrics.roc_curve, lambda a, b: metrics.tpr_tnr(a, b, 0.5)):
        with pytest.raises(InputError, match="benign scores of shape"):
            measure(bad, STRANGERS)
        with pytest.raises(InputError, match="out-of-distribution scores of shape"):
            measure(BENIGN, bad)


@pytest.mark.parametrize(
    ("accepted", "threshold"), [(0.0, -math.inf), (0.25, 0.1), (0.26, 0.2), (0.75, 0.2), (0.76, 0.6), (1.0, 0.6)]
)
def test_threshold_at_by_hand(accepted, threshold):
    found = threshold_at(BENIGN, accepted)
    assert found == pytest.approx(threshold)
    assert metrics.tpr_tnr(BENIGN, STRANGERS, found)[0] >= accepted


@pytest.mark.parametrize(("scores", "accepted"), [(BENIGN, 1.1), (BENIGN, -0.1), (torch.empty(0), 0.5)])
def test_thresholds_that_cannot_be(scores, accepted):
    with pytest.raises(InputError, match="a share in \\[0, 1\\] of at least one is wanted"):
        threshold_at(scores, accepted)


# -- scores ----------------------------------------------------------------------


class Rest(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model.head(self.model.features(x))


@pytest.mark.parametrize(("temperature", "epsilon"), [(1.0, 0.0), (10.0, 0.0014), (1000.0, 0.0028)])
def test_odin_is_pytorch_oods(victim, temperature, epsilon):
    floats = (IMAGES.float() / 255 - 0.5) / 0.25
    theirs = ODIN(Rest(victim.model), eps=epsilon, temperature=temperature, norm_std=[0.25] * 3).predict(floats)
    ours = OdinDetector(victim, temperature=temperature, epsilon=epsilon).score(IMAGES)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_odin_without_temperature_and_perturbation_is_the_highest_softmax(victim):
    ours = OdinDetector(victim, temperature=1.0, epsilon=0.0).score(IMAGES)
    torch.testing.assert_close(ours, -victim.logits(IMAGES).softmax(1).max(1).values)


def test_the_perturbation_makes_the_victim_surer(victim):
    """It is a step of at most ε pixels down the loss of the predicted class."""
    plain = OdinDetector(victim, temperature=1.0, epsilon=0.0).score(IMAGES)
    moved = OdinDetector(victim, temperature=1.0, epsilon=0.0014).score(IMAGES)
    assert (moved < plain).double().mean() > 0.9


def test_mahalanobis_is_pytorch_oods_and_the_formula(victim):
    known = flat(90, 60, seed=6)
    ours = MahalanobisDetector(victim, known, epsilon=0.0).score(IMAGES)
    model = victim.model
    with torch.no_grad():
        seen, asked = (model.features(model.normalise(images)) for images in (known.images, IMAGES))
    theirs = Mahalanobis(None).fit_features(seen, known.labels).predict_features(asked)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    means = torch.stack([seen[known.labels == label].mean(0) for label in range(3)]).double()
    centred = seen.double() - means[known.labels]
    inverse = torch.linalg.inv(centred.T @ centred + 1e-6 * torch.eye(seen.shape[1]))
    apart = asked.double()[:, None] - means
    distances = torch.einsum("ncd,de,nce->nc", apart, inverse, apart).min(1).values / 2
    torch.testing.assert_close(ours.double(), distances, rtol=1e-2, atol=1e-4)


def test_mahalanobis_needs_an_image_of_each_class(victim):
    known = flat(90, 60, seed=6)
    lacking = known.subset((known.labels != 1).nonzero()[:, 0])
    with pytest.raises(InputError, match="has no image of class 'b': one is needed"):
        MahalanobisDetector(victim, lacking, epsilon=0.0)


def test_features_at_hand_are_the_ones_that_would_be_extracted(victim):
    known = flat(90, 60, seed=6)
    given = MahalanobisDetector(victim, known, epsilon=0.001, features=features_of(victim, known.images))
    found = MahalanobisDetector(victim, known, epsilon=0.001)
    assert torch.equal(given.score(IMAGES), found.score(IMAGES)) and given.fingerprint == found.fingerprint


def test_the_victims_own_detectors_compute_where_the_environment_says(victim, monkeypatch):
    made = OdinDetector(victim, temperature=1.0, epsilon=0.0)
    # A GPU that no machine has: on the processor nothing would be refused.
    monkeypatch.setenv("EXTRACTLIB_DEVICE", "cuda:99")
    for use in (
        lambda: made.score(IMAGES),
        lambda: OdinDetector(victim, temperature=1.0, epsilon=0.0),
        lambda: MahalanobisDetector(victim, flat(90, 60, seed=6), epsilon=0.0),
        lambda: features_of(victim, IMAGES),
    ):
        with pytest.raises(InputError, match="device 'cuda:99' is asked for"):
            use()


# -- the binary detector -----------------------------------------------------------


@pytest.fixture(scope="module")
def binary(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("store"))
    recipe = Recipe(epochs=4, learning_rate=0.1, batch_size=32)
    options = {"network": "tiny", "recipe": recipe, "seed": 0, "store": store}
    dark, light = flat(20, 200, seed=1), flat(200, 150, seed=2)
    found = train_detector(dark, light, **options)
    again = train_detector(dark, light, **options)
    assert again.fingerprint == found.fingerprint
    assert len(list((store.root / "detector").glob("*/d.safetensors"))) == 1
    assert train_detector(light, dark, **options).fingerprint != found.fingerprint
    return found


def test_the_binary_detector_tells_dark_from_light(binary):
    dark, light = flat(20, 50, seed=3).images, flat(200, 50, seed=4).images
    assert not binary.detect(dark).any()
    assert binary.detect(light).all()
    scores = binary.score(light)
    assert torch.equal(binary.detect(light), scores > 0.5)
    assert 0 <= scores.min() and scores.max() <= 1


def test_a_detector_in_front_of_an_api_alters_what_it_catches(binary, victim):
    images = torch.cat([flat(20, 5, seed=3).images, flat(200, 5, seed=4).images])
    plain = PredictionAPI(victim).query(images).probabilities
    guarded = PredictionAPI(victim, detector=binary, policy=LabelOnly()).query(images).probabilities
    assert torch.equal(guarded[:5], plain[:5])
    assert set(guarded[5:].flatten().tolist()) == {0.0, 1.0}


def test_tune_picks_the_best_on_validation():
    """Scores are the level of the first pixel, turned over by the setting -1: only +1 can tell the sides apart."""

    class Level(BinaryDetector):
        def __init__(self, *, sign: float, size: float):
            self.sign, self.size, self.threshold, self.fingerprint = sign, size, 0.0, "level"

        def score(self, images):
            return self.sign * self.size * images[:, 0, 0, 0].float()

    settings = {"sign": (-1.0, 1.0), "size": (1.0, 2.0)}
    benign, strangers = flat(20, 50, seed=3), flat(200, 50, seed=4)
    detector, chosen = tune(Level, settings, benign=benign, strangers=strangers)
    assert chosen == {"sign": 1.0, "size": 1.0}  # of equals the first
    assert detector.sign == 1.0


@pytest.mark.parametrize(
    "images", [IMAGES.float(), IMAGES[0], IMAGES[:0]], ids=["float", "one image without a batch", "none"]
)
def test_images_of_another_kind_are_refused(binary, victim, images):
    for detector in (binary, OdinDetector(victim, temperature=1.0, epsilon=0.0)):
        with pytest.raises(InputError, match="uint8, at least one, is wanted"):
            detector.score(images)


def test_a_side_without_images_is_refused(tmp_path):
    nothing = flat(20, 10, seed=1).subset(torch.empty(0, dtype=torch.int64))
    with pytest.raises(InputError, match="both need some"):
        train_detector(
            flat(20, 10, seed=1), nothing, network="tiny", recipe=Recipe(1, 0.1), seed=0, store=Store(tmp_path)
        )
