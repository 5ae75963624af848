"""Detectors: their scores against pytorch-ood's own and against hand-computed cases, and how they are set."""

import math
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from pytorch_ood.detector import ODIN, Mahalanobis
from torch import nn

from extractlib import metrics
from extractlib.api.service import PredictionAPI
from extractlib.data.images import ImageSet
from extractlib.defenses import detectors
from extractlib.defenses.detectors import (
    BinaryDetector,
    Detector,
    LayeredMahalanobisDetector,
    MahalanobisDetector,
    OdinDetector,
    features_of,
    layers_of,
    logistic_regression,
    stages_of,
    tune,
)
from extractlib.defenses.policies import LabelOnly
from extractlib.errors import InputError, ResultWarning
from extractlib.models import networks
from extractlib.models.classifier import Victim
from extractlib.models.fitted import Trainer
from extractlib.models.training import Recipe
from extractlib.store import Store


def flat(level: int, count: int, *, seed: int, classes: int = 3) -> ImageSet:
    """Return gray images of about one level, labeled in turn."""
    generator = torch.Generator().manual_seed(seed)
    images = (level + torch.randint(0, 30, (count, 3, 16, 16), generator=generator)).to(torch.uint8)
    names = tuple(f"class {number}" for number in range(classes))
    return ImageSet(f"level {level}", images, torch.arange(count) % classes, names, f"{level} {count} {seed}")


@pytest.fixture(scope="module")
def victim():
    model = networks.build("tiny", classes=3, seed=1)
    return Victim(model, classes=("a", "b", "c"), image_shape=(3, 16, 16), name="flat")


IMAGES = flat(100, 40, seed=5).images


# -- metrics ---------------------------------------------------------------------

BENIGN, OOD = torch.tensor([0.1, 0.2, 0.2, 0.6]), torch.tensor([0.2, 0.5, 0.7])


def test_tpr_and_tnr_by_hand():
    # At 0.2 three of four benign scores are accepted, and two of three others are above it.
    assert metrics.tpr_tnr(BENIGN, OOD, 0.2) == pytest.approx((3 / 4, 2 / 3))
    assert metrics.tpr_tnr(BENIGN, OOD, math.inf) == (1, 0)
    assert metrics.tpr_tnr(BENIGN, OOD, -1) == (0, 1)
    assert metrics.balanced_accuracy(0.75, 0.5) == 0.625


def test_auroc_by_hand():
    # Of twelve pairs: .2 is above one benign score and ties with two, .5 is above three, .7 above four.
    assert metrics.auroc(BENIGN, OOD) == pytest.approx((1 + 2 * 0.5 + 3 + 4) / 12)


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
    accepted, caught = metrics.roc_curve(BENIGN, OOD, points=5)
    assert accepted.tolist() == [0, 0.25, 0.75, 0.75, 1]
    assert caught.tolist() == pytest.approx([1, 1, 2 / 3, 2 / 3, 0])


def test_a_roc_curve_has_101_points_unless_told_otherwise():
    assert [len(side) for side in metrics.roc_curve(BENIGN, OOD)] == [101, 101]


def test_the_thresholds_of_a_roc_curve_are_at_the_nearest_ranks():
    """Of four benign scores at four points: ranks 0, 4/3, 8/3 and 4, hence the first, the third and everything."""
    benign, ood = torch.tensor([0.1, 0.2, 0.3, 0.6]), torch.tensor([0.1, 0.15, 0.25, 0.7])
    accepted, caught = metrics.roc_curve(benign, ood, points=4)
    assert accepted.tolist() == [0, 0.25, 0.75, 1]
    assert caught.tolist() == [1, 0.75, 0.25, 0]


def test_equal_scores_are_accepted_or_caught_together():
    """All scores are one number: a threshold accepts nothing of either side or everything."""
    same = torch.full((10,), 0.5)
    accepted, caught = metrics.roc_curve(same, same[:3], points=5)
    assert accepted.tolist() == [0, 1, 1, 1, 1] and caught.tolist() == [1, 0, 0, 0, 0]
    assert metrics.auroc(same, same[:3]) == 0.5
    assert metrics.tpr_tnr(same, same, 0.5) == (1, 0)


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=20),
    st.lists(st.integers(0, 9), min_size=1, max_size=20),
    st.integers(2, 30),
)
def test_every_point_of_a_roc_curve_is_a_threshold(benign, ood, points):
    """With ties too: TPR and TNR belong together, and run from nothing accepted to everything."""
    benign, ood = torch.tensor(benign).float(), torch.tensor(ood).float()
    curve = list(zip(*(side.tolist() for side in metrics.roc_curve(benign, ood, points=points)), strict=True))
    thresholds = [-math.inf, *benign.tolist(), math.inf]
    possible = {metrics.tpr_tnr(benign, ood, threshold) for threshold in thresholds}
    assert all(any(math.dist(point, known) < 1e-12 for known in possible) for point in curve)
    assert (curve[0], curve[-1]) == ((0, 1), (1, 0))
    assert curve == sorted(curve, key=lambda point: (point[0], -point[1]))


@pytest.mark.parametrize("bad", [torch.empty(0), torch.tensor([0.1, math.nan])])
def test_scores_that_are_none_are_refused(bad):
    for measure in (metrics.auroc, metrics.roc_curve, lambda a, b: metrics.tpr_tnr(a, b, 0.5)):
        with pytest.raises(InputError, match="benign scores are"):
            measure(bad, OOD)
        with pytest.raises(InputError, match="out-of-distribution scores are"):
            measure(BENIGN, bad)


@pytest.mark.parametrize(
    ("accepted", "threshold"), [(0.0, -math.inf), (0.25, 0.1), (0.26, 0.2), (0.75, 0.2), (0.76, 0.6), (1.0, 0.6)]
)
def test_threshold_at_by_hand(accepted, threshold):
    found = metrics.threshold_at(BENIGN, accepted)
    assert found == pytest.approx(threshold)
    assert metrics.tpr_tnr(BENIGN, OOD, found)[0] >= accepted


@pytest.mark.parametrize(("scores", "accepted"), [(BENIGN, 1.1), (BENIGN, -0.1), (torch.empty(0), 0.5)])
def test_thresholds_that_cannot_be(scores, accepted):
    with pytest.raises(InputError, match="expected a share in \\[0, 1\\] of at least one"):
        metrics.threshold_at(scores, accepted)


# -- scores ----------------------------------------------------------------------


class Rest(nn.Module):
    """A network of the package's from normalized floats on, as any module may come."""

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


MEAN, SPREAD = [0.3, 0.4, 0.5], [0.1, 0.4, 0.7]


@pytest.fixture(scope="module")
def foreign():
    """A smooth module of 27 inputs, of double precision, whose channels are normalized each in its own way."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Flatten(), nn.Linear(27, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    return Victim(module, classes=("a", "b", "c"), mean=MEAN, std=SPREAD, layer="3")


def small(count: int, *, seed: int) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, 3, 3), dtype=torch.uint8, generator=generator)
    return ImageSet("small", images, torch.arange(count) % 3, ("a", "b", "c"))


def normalized(pixels: torch.Tensor) -> torch.Tensor:
    mean, spread = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (MEAN, SPREAD))
    return (pixels - mean) / spread


def stepped(pixels: torch.Tensor, loss, epsilon: float) -> torch.Tensor:
    """Return pixels in [0, 1] moved by ε against the sign of the gradient of a loss of normalized images."""
    pixels = pixels.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(normalized(pixels)).sum(), pixels)
    return pixels.detach() - epsilon * gradient.sign()


@pytest.mark.parametrize("temperature", [1.0, 10.0])
@pytest.mark.parametrize("epsilon", [0.0, 0.01])
def test_odin_is_the_formula_on_every_channel(foreign, temperature, epsilon):
    """The step is of one size in pixels, whatever a channel is divided by."""
    images, module = small(30, seed=1).images, foreign.model.module
    pixels = images.double() / 255
    labels = module(normalized(pixels)).argmax(1)
    moved = stepped(pixels, lambda x: F.cross_entropy(module(x) / temperature, labels, reduction="none"), epsilon)
    assert (moved - pixels).abs().amax((0, 2, 3)).tolist() == pytest.approx([epsilon] * 3)
    expected = -(module(normalized(moved)) / temperature).softmax(1).max(1).values
    ours = OdinDetector(foreign, temperature=temperature, epsilon=epsilon).score(images)
    torch.testing.assert_close(ours.double(), expected.detach())
    plain = OdinDetector(foreign, temperature=temperature, epsilon=0.0).score(images)
    assert bool((ours < plain).all()) == (epsilon > 0)


def distances(known: ImageSet, seen: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
    """Return half the squared Mahalanobis distance of features to each class of the known ones."""
    means = torch.stack([seen[known.labels == label].mean(0) for label in range(3)])
    centered = seen - means[known.labels]
    inverse = torch.linalg.inv(centered.T @ centered + 1e-6 * torch.eye(seen.shape[1], dtype=seen.dtype))
    apart = asked[:, None] - means
    return torch.einsum("ncd,de,nce->nc", apart, inverse, apart) / 2


@pytest.mark.parametrize("epsilon", [0.0, 0.01])
def test_mahalanobis_is_the_formula_on_every_channel(foreign, epsilon):
    known, images, module = small(90, seed=2), small(30, seed=1).images, foreign.model.module
    pixels = images.double() / 255

    def of(x: torch.Tensor) -> torch.Tensor:
        return module[2](module[1](x.flatten(1)))

    seen = of(normalized(known.images.double() / 255)).detach()
    nearest = distances(known, seen, of(normalized(pixels))).argmin(1)
    moved = stepped(pixels, lambda x: distances(known, seen, of(x)).gather(1, nearest[:, None]), epsilon)
    expected = distances(known, seen, of(normalized(moved))).min(1).values.detach()
    with default_dtype(torch.float64):
        ours = MahalanobisDetector(foreign, known, epsilon=epsilon).score(images)
        plain = MahalanobisDetector(foreign, known, epsilon=0.0).score(images)
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-9)
    assert bool((ours < plain).all()) == (epsilon > 0)
    # In single precision too, whatever the module's own is.
    single = MahalanobisDetector(foreign, known, epsilon=epsilon).score(images)
    torch.testing.assert_close(single, expected.float(), rtol=1e-2, atol=1e-4)


@contextmanager
def default_dtype(kind: torch.dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("epsilon", [0.0, 0.002])
def test_a_module_is_scored_as_the_same_network_of_the_packages(victim, epsilon):
    """However its normalization is written: as the package's network, or as a module with one spread or three."""
    known = flat(90, 60, seed=6)
    scores = []
    for same in (
        victim,
        Victim(Rest(victim.model), classes=victim.classes, mean=[0.5], std=[0.25], layer="model.head"),
        Victim(Rest(victim.model), classes=victim.classes, mean=[0.5] * 3, std=[0.25] * 3, layer="model.head"),
    ):
        odin = OdinDetector(same, temperature=10.0, epsilon=epsilon).score(IMAGES)
        mahalanobis = MahalanobisDetector(same, known, epsilon=epsilon).score(IMAGES)
        scores.append((odin, mahalanobis, features_of(same, IMAGES)))
    for odin, mahalanobis, features in scores[1:]:
        torch.testing.assert_close(features, scores[0][2], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(odin, scores[0][0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(mahalanobis, scores[0][1], rtol=2e-2, atol=1e-3)


def test_a_victim_that_names_no_layer_has_no_features(victim):
    nameless = Victim(Rest(victim.model), classes=victim.classes, mean=[0.5], std=[0.25])
    for use in (
        lambda: features_of(nameless, IMAGES),
        lambda: MahalanobisDetector(nameless, flat(90, 60, seed=6), epsilon=0.0),
    ):
        with pytest.raises(InputError, match="no feature layer is named: give Victim\\(module, layer='…'\\), .* input"):
            use()
    # ODIN needs none.
    assert OdinDetector(nameless, temperature=1.0, epsilon=0.001).score(IMAGES).shape == (40,)


def test_a_module_that_returns_probabilities_is_scored_as_one_that_returns_logits(victim):
    plain = Victim(Rest(victim.model), classes=victim.classes, mean=[0.5], std=[0.25])
    module = nn.Sequential(Rest(victim.model), nn.Softmax(1))
    sure = Victim(module, classes=victim.classes, mean=[0.5], std=[0.25], outputs="probabilities")
    scores = [OdinDetector(one, temperature=10.0, epsilon=0.001).score(IMAGES) for one in (plain, sure)]
    torch.testing.assert_close(*scores, rtol=1e-4, atol=1e-6)


def test_mahalanobis_is_pytorch_oods(victim):
    known = flat(90, 60, seed=6)
    ours = MahalanobisDetector(victim, known, epsilon=0.0).score(IMAGES)
    model = victim.model
    with torch.no_grad():
        seen, asked = (model.features(model.normalize(images)) for images in (known.images, IMAGES))
    theirs = Mahalanobis(None).fit_features(seen, known.labels).predict_features(asked)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_mahalanobis_says_that_its_scatter_has_no_inverse(victim):
    """With fewer images than classes and features its scores may be negative, which a distance never is."""
    known = flat(90, 60, seed=6)
    width = features_of(victim, known.images).shape[1]
    enough = 3 + width
    words = rf"{enough - 1} images for {width} features and 3 classes: .* with fewer than {enough}, since"
    with pytest.warns(ResultWarning, match=words):
        MahalanobisDetector(victim, known.subset(torch.arange(enough - 1)), epsilon=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MahalanobisDetector(victim, known.subset(torch.arange(enough)), epsilon=0.0)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda victim, known: OdinDetector(victim, temperature=0.0, epsilon=0.0), "temperature is 0.0: .* above 0$"),
        (lambda victim, known: OdinDetector(victim, temperature=-1.0, epsilon=0.0), "temperature is -1.0: .* above 0$"),
        (lambda victim, known: OdinDetector(victim, temperature=1.0, epsilon=-0.1), "epsilon is -0.1: .* at least 0$"),
        (lambda victim, known: MahalanobisDetector(victim, known, epsilon=math.nan), "epsilon is nan: .* at least 0$"),
        (lambda victim, known: MahalanobisDetector(victim, known.images, epsilon=0.0), "known has no labels: "),
        (
            lambda victim, known: MahalanobisDetector(victim, known, epsilon=0.0, features=torch.rand(10, 8)),
            "features are those of 10 images, but level 100 has 90: give what features_of",
        ),
        (
            lambda victim, known: MahalanobisDetector(victim, flat(100, 90, seed=3, classes=5), epsilon=0.0),
            "has images of class 'class 4', number 4, but the victim has 3 classes: give the images that it was",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(victim, made, message):
    with pytest.raises(InputError, match=message):
        made(victim, flat(100, 90, seed=3))


def test_tensors_will_do_for_what_needs_no_labels(victim):
    sides = {"benign": flat(100, 30, seed=1), "ood": flat(200, 30, seed=2)}
    make, settings = partial(OdinDetector, victim, epsilon=0.0), {"temperature": (1.0, 10.0)}
    _, chosen = tune(make, settings, **{name: side.images for name, side in sides.items()})
    assert chosen == tune(make, settings, **sides)[1]


class Recurrent(nn.Module):
    """A module with a layer that returns two things, and one that is given its input by keyword."""

    def __init__(self):
        super().__init__()
        self.rows, self.last = nn.LSTM(48, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.last(input=self.rows(x.flatten(1, 2).transpose(1, 2))[0][:, -1])


def test_layers_that_cannot_be_looked_at_are_named():
    victim, known = Victim(Recurrent(), classes=("a", "b", "c"), layer="last"), flat(100, 90, seed=3)
    with pytest.raises(InputError, match="^layer 'last' is called by keyword: name another whose input is a tensor$"):
        MahalanobisDetector(victim, known, epsilon=0.0)
    with pytest.raises(InputError, match=r"^layer 'rows' returns a tuple: name one .* of shape \(n, channels, …\)$"):
        LayeredMahalanobisDetector(victim, known, benign=known, ood=known, epsilon=0.0, layers=["rows"])


def test_mahalanobis_needs_an_image_of_each_class(victim):
    known = flat(90, 60, seed=6)
    lacking = known.subset(known.labels != 1)
    with pytest.raises(InputError, match="has no image of class 'b': one is needed"):
        MahalanobisDetector(victim, lacking, epsilon=0.0)
    with pytest.raises(InputError, match="^level 90 has no labels: the classes' means need them$"):
        MahalanobisDetector(victim, known.unlabeled(), epsilon=0.0)


# -- several layers ----------------------------------------------------------------


def test_a_logistic_regression_by_hand():
    """Of two values, -1 and 1 when standardized: w = 2 / (1 + exp w), which is 0.6749, and no constant."""
    weights = logistic_regression(torch.tensor([[3.0], [7.0]], dtype=torch.float64), torch.tensor([0, 1]))
    assert weights.tolist() == pytest.approx([0.6749 / 2, -0.6749 / 2 * 5], abs=1e-3)
    # The constant has no penalty: it is the log of the odds where the values say nothing.
    alone = logistic_regression(torch.full((4, 1), 2.0, dtype=torch.float64), torch.tensor([0, 1, 1, 1]))
    assert alone.tolist() == pytest.approx([0, math.log(3)], abs=1e-4)


def test_layers_are_pooled_scored_and_weighed_by_a_regression_on_validation(victim):
    known, model = flat(90, 60, seed=6), victim.model
    benign, ood = flat(90, 20, seed=7), flat(140, 30, seed=8)
    layered = LayeredMahalanobisDetector(victim, known, benign=benign, ood=ood, epsilon=0.0)
    assert stages_of(victim) == [f"stages.{number}" for number in range(len(model.stages))]

    def outputs(images):
        x, found = model.stem(model.normalize(images)).relu(), []
        for stage in model.stages:
            x = stage(x)
            found.append(x.mean((2, 3)))
        return found

    with torch.no_grad():
        seen = outputs(known.images)
        columns = [
            torch.stack(
                [
                    Mahalanobis(None).fit_features(one, known.labels).predict_features(asked)
                    for one, asked in zip(seen, outputs(images), strict=True)
                ],
                1,
            ).double()
            for images in (IMAGES, benign.images, ood.images)
        ]
    torch.testing.assert_close(layered.layer_scores(IMAGES), columns[0], rtol=1e-2, atol=1e-3)
    labels = torch.tensor([0] * 20 + [1] * 30)
    weights = logistic_regression(torch.cat([layered.layer_scores(one.images) for one in (benign, ood)]), labels)
    assert torch.equal(layered.weights, weights)
    expected = layered.layer_scores(IMAGES) @ weights[:-1] + weights[-1]
    torch.testing.assert_close(layered.score(IMAGES).double(), expected, rtol=1e-4, atol=1e-4)
    assert metrics.auroc(layered.score(benign.images), layered.score(ood.images)) > 0.95


def test_one_layer_is_the_plain_detector_up_to_scale(foreign):
    """The last hidden layer of a module of one's own, whose input the plain detector looks at."""
    known, images, sides = small(90, seed=2), small(30, seed=1).images, (small(20, seed=3), small(20, seed=4))
    options = {"benign": sides[0], "ood": sides[1], "epsilon": 0.01}
    layered = LayeredMahalanobisDetector(foreign, known, layers=["2"], **options)
    plain = MahalanobisDetector(foreign, known, epsilon=0.01).score(images)
    torch.testing.assert_close(layered.layer_scores(images)[:, 0].float(), plain, rtol=1e-2, atol=1e-3)
    assert layered.fingerprint != LayeredMahalanobisDetector(foreign, known, layers=["1"], **options).fingerprint
    with pytest.raises(InputError, match="the LayeredMahalanobisDetector has no threshold and catches nothing: give"):
        layered.detect(images)
    layered.threshold = layered.score(images).median().item()
    assert int(layered.detect(images).sum()) == 15
    with pytest.raises(InputError, match="unknown layer '9': use one of 0, 1, 2, 3"):
        LayeredMahalanobisDetector(foreign, known, layers=["9"], **options)
    foreign.model.module[0].add_module("spare", torch.nn.Linear(2, 2).double())
    with pytest.raises(InputError, match="^layer '0.spare' is not used by the module: name another from module"):
        LayeredMahalanobisDetector(foreign, known, layers=["0.spare"], **options)
    del foreign.model.module[0].spare
    remedy = r"give LayeredMahalanobisDetector\(…, layers=\[…\]\), .* \(Victim's layer='…' is for Mahalan"
    with pytest.raises(InputError, match=f"is not a network with stages: {remedy}"):
        LayeredMahalanobisDetector(foreign, known, **options)


def test_features_at_hand_are_the_ones_that_would_be_extracted(victim):
    known = flat(90, 60, seed=6)
    given = MahalanobisDetector(victim, known, epsilon=0.001, features=features_of(victim, known.images))
    found = MahalanobisDetector(victim, known, epsilon=0.001)
    assert torch.equal(given.score(IMAGES), found.score(IMAGES)) and given.fingerprint == found.fingerprint


def test_features_of_another_number_of_layers_are_refused(foreign):
    known, sides = small(90, seed=2), (small(20, seed=3), small(20, seed=4))
    features = layers_of(foreign, known.images, ["1", "2"])
    options = {"benign": sides[0], "ood": sides[1], "epsilon": 0.0, "layers": ["1", "2"]}
    assert LayeredMahalanobisDetector(foreign, known, features=features, **options).weights.shape == (3,)
    with pytest.raises(ValueError):
        LayeredMahalanobisDetector(foreign, known, features=features[:1], **options)


def test_the_layers_of_a_network_that_names_them_are_those():
    lite = networks.build("lite0-6", classes=2, seed=0)
    assert stages_of(Victim(lite, classes=("a", "b"))) == ["stages.3", "stages.5", "stages.7"]


def _asked_by_two_threads(ask):
    """Return what two threads get for images of the levels 10 and 200, asked at the same time."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(ask, (torch.full((1, 1, 2, 2), level, dtype=torch.uint8) for level in (10, 200))))


def test_threads_that_share_a_module_get_their_own_features():
    """Both are inside the module at once, so that each one's hook sees the other's images."""

    class Meeting(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.barrier = nn.Linear(4, 2), threading.Barrier(2, timeout=60)

        def forward(self, x):
            self.barrier.wait()
            found = self.last(x.flatten(1))
            self.barrier.wait()
            return found

    victim = Victim(Meeting(), classes=("a", "b"), layer="last")
    found = _asked_by_two_threads(lambda images: features_of(victim, images))
    assert [one[0, 0].item() for one in found] == pytest.approx([10 / 255, 200 / 255])
    expected = [victim.model.module.last(one)[0].tolist() for one in found]
    layers = _asked_by_two_threads(lambda images: layers_of(victim, images, ["last"]))
    assert [one[0][0].tolist() for one in layers] == [pytest.approx(one) for one in expected]


class Recording(nn.Module):
    """Notes how many images come at a time."""

    def __init__(self):
        super().__init__()
        self.weight, self.sizes = nn.Parameter(torch.zeros(1)), []

    def normalize(self, images):
        return images.float()

    def features(self, x):
        self.sizes.append(len(x))
        return x.mean((2, 3))


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [((513, 1, 1, 1), [512, 1]), ((497, 3, 32, 33), [496, 1]), ((2, 3, 725, 725), [1, 1]), ((1, 1, 600, 600), [1])],
)
def test_a_batch_has_no_more_pixels_than_512_images_of_32(shape, sizes):
    model = Recording()
    images = torch.arange(shape[0]).remainder(256).byte().view(-1, 1, 1, 1).expand(shape)
    assert torch.equal(features_of(SimpleNamespace(model=model), images)[:, 0], images[:, 0, 0, 0].float())
    assert model.sizes == sizes


def test_detectors_compute_where_the_victim_is(victim, monkeypatch):
    """No environment variable has a say: the GPU that this one names is nowhere."""
    monkeypatch.setenv("EXTRACTLIB_DEVICE", "cuda:99")
    known = flat(90, 60, seed=6)
    for detector in (
        OdinDetector(victim, temperature=1.0, epsilon=0.001),
        MahalanobisDetector(victim, known, epsilon=0.001),
    ):
        assert detector.score(IMAGES).device.type == "cpu"


def test_the_settings_to_choose_from_are_those_of_the_papers():
    assert OdinDetector.SETTINGS == {"temperature": (1.0, 10.0, 100.0, 1000.0), "epsilon": (0.0, 0.0014, 0.0028)}
    assert MahalanobisDetector.SETTINGS == {"epsilon": (0.0, 0.0005, 0.001, 0.002, 0.005)}


def test_what_is_above_the_threshold_is_caught_and_what_is_at_it_is_not(victim):
    for make in (
        lambda **threshold: OdinDetector(victim, temperature=1.0, epsilon=0.0, **threshold),
        lambda **threshold: MahalanobisDetector(victim, flat(90, 60, seed=6), epsilon=0.0, **threshold),
    ):
        scores = make().score(IMAGES)
        middle = scores.sort().values[20].item()
        assert make(threshold=middle).detect(IMAGES).tolist() == (scores > middle).tolist()
        with pytest.raises(InputError, match="Detector has no threshold and catches nothing: give it one"):
            make().detect(IMAGES)


def test_whatever_differs_makes_another_detector(victim):
    other = Victim(networks.build("tiny", classes=3, seed=2), classes=("a", "b", "c"))
    known, more = flat(90, 60, seed=6), flat(90, 60, seed=7)
    prints = [
        OdinDetector(victim, temperature=1.0, epsilon=0.0).fingerprint,
        OdinDetector(other, temperature=1.0, epsilon=0.0).fingerprint,
        OdinDetector(victim, temperature=2.0, epsilon=0.0).fingerprint,
        OdinDetector(victim, temperature=1.0, epsilon=0.1).fingerprint,
        OdinDetector(victim, temperature=1.0, epsilon=0.0, threshold=0.0).fingerprint,
        MahalanobisDetector(victim, known, epsilon=0.0).fingerprint,
        MahalanobisDetector(other, known, epsilon=0.0).fingerprint,
        MahalanobisDetector(victim, more, epsilon=0.0).fingerprint,
        MahalanobisDetector(victim, known, epsilon=0.1).fingerprint,
        MahalanobisDetector(victim, known, epsilon=0.0, threshold=0.0).fingerprint,
        BinaryDetector(victim.model).fingerprint,
        BinaryDetector(other.model).fingerprint,
    ]
    assert len(set(prints)) == len(prints)
    assert OdinDetector(victim, temperature=1.0, epsilon=0.0).fingerprint == prints[0]


# -- the binary detector -----------------------------------------------------------


RECIPE = Recipe(epochs=4, learning_rate=0.1, batch_size=32)


@pytest.fixture(scope="module")
def binary(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("store"))
    trainer = Trainer(network="tiny", recipe=RECIPE, seed=0, store=store)
    dark, light = flat(20, 200, seed=1), flat(200, 150, seed=2)
    found = BinaryDetector.train(dark, light, trainer)
    assert BinaryDetector.train(dark, light, trainer).fingerprint == found.fingerprint
    assert len(list((store.root / "detector").glob("*/model.safetensors"))) == 1
    return found


def recorded(benign: ImageSet, ood: ImageSet) -> tuple:
    """Return what a detector of two sides is trained on: kind, images, labels and number of classes."""
    seen = []

    class Recording(Trainer):
        def fit_or_load(self, kind, images, targets, *, classes, key=None):
            seen.append((kind, images, targets, classes))
            return networks.build("tiny", classes=classes, seed=0)

    BinaryDetector.train(benign, ood, Recording(network="tiny", recipe=RECIPE, seed=0))
    return seen[0]


def test_without_a_trainer_a_detector_starts_from_the_shipped_weights(monkeypatch):
    made = []

    def fit_or_load(self, kind, images, targets, *, classes, key):
        made.append(self)
        return networks.build("tiny", classes=classes, seed=0)

    monkeypatch.setattr(Trainer, "fit_or_load", fit_or_load)
    BinaryDetector.train(flat(20, 3, seed=1), flat(200, 3, seed=2))
    assert made == [Trainer(network="resnet", recipe=detectors.DETECTOR, seed=0, backbone="shipped")]


def test_a_detector_is_trained_anew_where_its_version_is_another(tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr("extractlib.models.fitted.fit", lambda model, *given, **options: trained.append(1) or model)
    for number in (1, 1, 2):
        monkeypatch.setattr(detectors, "versions", lambda name, number=number: {name: number})
        trainer = Trainer(network="tiny", recipe=RECIPE, seed=0, store=Store(tmp_path))
        BinaryDetector.train(flat(20, 5, seed=1), flat(200, 3, seed=2), trainer)
    assert len(trained) == 2


def test_the_binary_detector_learns_from_equally_many_of_both_sides():
    kind, images, labels, classes = recorded(flat(20, 5, seed=1), flat(200, 3, seed=2))
    assert (kind, classes, labels.tolist()) == ("detector", 2, [0, 0, 0, 1, 1, 1])
    both = torch.cat([flat(20, 5, seed=1).images[:3], flat(200, 3, seed=2).images])
    assert torch.equal(images.images, both)


def test_a_side_that_is_cut_in_the_order_of_its_classes_is_named():
    """A third of 300 images sorted by class is one class; of 30 at random, 10 of each would be missed by chance."""
    trainer = Trainer(network="tiny", recipe=Recipe(epochs=1, learning_rate=0.1, shift=0), seed=0)
    pool, task = flat(200, 100, seed=2).unlabeled(), flat(20, 300, seed=1)
    in_order = task.subset(task.labels.argsort())
    with pytest.warns(ResultWarning, match="the first 100 of 300 .* none is of class 'class 1' or 1 others: draw them"):
        BinaryDetector.train(in_order, pool, trainer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BinaryDetector.train(task, pool, trainer)
        BinaryDetector.train(in_order, pool.subset(torch.arange(29)), trainer)  # so few may lack a class


def test_whatever_differs_makes_another_training_set():
    dark, light = flat(20, 5, seed=1), flat(200, 3, seed=2)
    pairs = [
        (dark, light),
        (light, dark),
        (flat(20, 5, seed=3), light),
        (dark, flat(200, 3, seed=3)),
        (dark, replace(flat(200, 4, seed=2), fingerprint=light.fingerprint)),  # one image more of each side
    ]
    assert len({recorded(*pair)[1].fingerprint for pair in pairs}) == len(pairs)


def test_the_binary_score_is_the_softmax_of_the_second_output(binary):
    light = flat(200, 20, seed=4).images
    with torch.no_grad():
        logits = binary.model(light)
    torch.testing.assert_close(binary.score(light), 1 / (1 + (logits[:, 0] - logits[:, 1]).exp()))


def test_the_binary_detector_may_be_ones_own_module(binary, victim):
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))
    own = [Victim(module, classes=("benign", "ood"), mean=mean, std=0.25) for mean in (0.5, 0.4)]
    with torch.no_grad():
        expected = module((IMAGES.float() / 255 - 0.5) / 0.25).softmax(1)[:, 1]
    torch.testing.assert_close(BinaryDetector(own[0]).score(IMAGES), expected)
    assert BinaryDetector(own[0]).fingerprint != BinaryDetector(own[1]).fingerprint
    again = BinaryDetector(Victim(binary.model, classes=("benign", "ood")))
    assert again.fingerprint == binary.fingerprint and torch.equal(again.score(IMAGES), binary.score(IMAGES))
    with pytest.raises(InputError, match=r"^the detector's model is a Sequential: give your own module as Victim\("):
        BinaryDetector(module)
    with pytest.raises(InputError, match="^flat has 3 classes: a detector needs two, the second ood$"):
        BinaryDetector(victim)
    with pytest.raises(InputError, match=r"^the detector's network returned \(40, 3\) for 40 images: expected two log"):
        BinaryDetector(victim.model).score(IMAGES)


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


def test_a_threshold_is_a_number(victim):
    make = partial(OdinDetector, victim, temperature=1.0, epsilon=0.0)
    prints = [make(threshold=given).fingerprint for given in (0.12341, 0.12344)]
    near = [make(threshold=torch.tensor(given, dtype=torch.float64)) for given in (0.12341, 0.12344)]
    assert near[0].fingerprint == prints[0] != near[1].fingerprint == prints[1]
    assert type(near[0].threshold) is float
    for wrong in (math.nan, torch.tensor(math.nan), "high", None, torch.zeros(2)):
        with pytest.raises(
            InputError, match="^threshold is .*: expected a number, such as metrics.threshold_at returns"
        ):
            make(threshold=wrong)
    with pytest.raises(InputError, match="^threshold is nan: expected a number"):
        near[0].threshold = math.nan


def test_a_threshold_that_is_set_later_is_in_the_fingerprint(binary, victim):
    first = binary.fingerprint
    with_another = BinaryDetector(binary.model)
    assert with_another.fingerprint == first
    with_another.threshold = 0.75
    assert with_another.fingerprint != first
    with_another.threshold = 0.5
    assert with_another.fingerprint == first
    made = OdinDetector(victim, temperature=1.0, epsilon=0.0, threshold=-0.5)
    later = OdinDetector(victim, temperature=1.0, epsilon=0.0)
    assert later.fingerprint != made.fingerprint
    later.threshold = -0.5
    assert later.fingerprint == made.fingerprint


@pytest.mark.parametrize("own", [False, True])
def test_a_binary_detectors_fingerprint_follows_its_weights(victim, own):
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))
    module = module if own else networks.build("tiny", classes=2, seed=0)
    detector = BinaryDetector(Victim(module, classes=("benign", "ood")))
    api = PredictionAPI(victim, detector=detector, policy=LabelOnly())
    weight = next(module.parameters())
    before, kept = (detector.fingerprint, api.fingerprint), weight.detach().clone()
    assert (detector.fingerprint, api.fingerprint) == before
    weight.data.mul_(2)  # through .data, which torch does not count
    assert detector.fingerprint != before[0] and api.fingerprint != before[1]
    with torch.no_grad():
        weight.copy_(kept)
    assert (detector.fingerprint, api.fingerprint) == before


class Level(Detector):
    """Scores are the level of the first pixel, turned over by the setting -1: only +1 can tell dark from light."""

    def __init__(self, *, sign: float, size: float):
        self.sign, self.size, self.threshold, self.fingerprint = sign, size, 0.0, "level"

    def score(self, images):
        return self.sign * self.size * images[:, 0, 0, 0].float()


def test_tune_picks_the_best_on_validation():
    settings = {"sign": (-1.0, 1.0), "size": (1.0, 2.0)}
    detector, chosen = tune(Level, settings, benign=flat(20, 50, seed=3), ood=flat(200, 50, seed=4))
    assert chosen == {"sign": 1.0, "size": 1.0}  # of equals the first
    assert (detector.sign, detector.size) == (1.0, 1.0)


class Given(Detector):
    """Scores are given: those of benign images, whose first pixel is 0, and of the others."""

    SCORES = {
        # 20 benign scores and 4 others. The threshold at 95% is the 19th benign score.
        "tnr": ([0.0] * 18 + [9.0, 10.0], [9.5, 9.5, 9.5, -1.0]),  # TNR 3/4, AUROC 0.7
        "auroc": ([0.0] * 18 + [9.0, 10.0], [8.0, 8.0, 8.0, 8.0]),  # TNR 0, AUROC 0.9
        "equal tnr": ([0.0] * 18 + [9.0, 10.0], [9.5, 9.5, 9.5, 8.0]),  # TNR 3/4, AUROC above that of the first
    }

    def __init__(self, *, which: str):
        self.benign, self.ood = map(torch.tensor, self.SCORES[which])
        self.threshold, self.fingerprint = 0.0, which

    def score(self, images):
        return self.benign if images[0, 0, 0, 0] == 0 else self.ood


@pytest.mark.parametrize(
    ("order", "best"),
    [
        (("tnr", "auroc"), "tnr"),
        (("auroc", "tnr"), "tnr"),
        (("tnr", "equal tnr"), "equal tnr"),
        (("equal tnr", "tnr"), "equal tnr"),
        (("auroc", "tnr", "equal tnr"), "equal tnr"),
    ],
)
def test_tune_goes_by_tnr_and_of_equals_by_auroc(order, best):
    sides = {name: Given(which=name) for name in order}
    quality = {
        name: (metrics.tpr_tnr(one.benign, one.ood, 9.0)[1], metrics.auroc(one.benign, one.ood))
        for name, one in sides.items()
    }
    if set(order) == {"tnr", "auroc"}:  # the two orders are opposite
        assert quality["tnr"][0] > quality["auroc"][0] and quality["tnr"][1] < quality["auroc"][1]
    benign, ood = (replace(flat(20, 20, seed=0), images=torch.full((20, 3, 4, 4), level).byte()) for level in (0, 200))
    _, chosen = tune(Given, {"which": order}, benign=benign, ood=ood)
    assert chosen == {"which": best}


@pytest.mark.parametrize(
    "images", [IMAGES.float(), IMAGES[0], IMAGES[:0]], ids=["float", "one image without a batch", "none"]
)
def test_images_of_another_kind_are_refused(binary, victim, images):
    for detector in (binary, OdinDetector(victim, temperature=1.0, epsilon=0.0)):
        with pytest.raises(InputError, match=r"expected uint8 of shape \(n, channels, height, width\), n at least 1"):
            detector.score(images)


def test_a_side_without_images_is_refused():
    some, nothing = flat(20, 10, seed=1), flat(20, 10, seed=1).subset(torch.empty(0, dtype=torch.int64))
    for sides in ((some, nothing), (nothing, some)):
        with pytest.raises(InputError, match="level 20 has .* images and level 20 .*: both need some"):
            BinaryDetector.train(*sides, Trainer(network="tiny", recipe=RECIPE, seed=0))


def test_a_score_that_is_no_number_catches_nothing_silently():
    class Lost(Detector):
        threshold, fingerprint = 0.5, "lost"

        def score(self, images):
            return torch.tensor([0.1, math.nan, 0.9, math.nan])[: len(images)]

    with pytest.raises(InputError, match="^the Lost has the score NaN for 2 of 4 images: make it again, trained with"):
        Lost().detect(IMAGES[:4])
    assert Lost().detect(IMAGES[:1]).tolist() == [False]


def in_place() -> Victim:
    """Return a victim whose activations overwrite what they get."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        module = nn.Sequential(*parts, nn.Linear(4, 3))
    return Victim(module, classes=("a", "b", "c"), image_shape=(3, 16, 16), layer="5")


def test_layers_are_seen_before_the_next_one_works_in_place():
    victim = in_place()
    [found] = layers_of(victim, IMAGES, ["1"])
    with torch.no_grad():
        expected = victim.model.module[:2](victim.model.normalize(IMAGES)).mean((2, 3))
    torch.testing.assert_close(found, expected)
    assert expected.min() < 0


@pytest.mark.parametrize("kind", ["odin", "mahalanobis"])
def test_detecting_leaves_a_victim_as_it_is(kind):
    """Its mode, the statistics of its batch normalizations, and the gradients of its weights."""
    victim = in_place()
    victim.model.train()
    weights = dict(victim.model.named_parameters())
    first = next(iter(weights))
    weights[first].grad = torch.ones_like(weights[first])
    if kind == "odin":
        detector = OdinDetector(victim, temperature=10.0, epsilon=0.01)
    else:
        detector = MahalanobisDetector(victim, flat(100, 40, seed=1), epsilon=0.01)
    before = victim.fingerprint, detector.score(IMAGES)
    victim.model.eval()
    torch.testing.assert_close(detector.score(IMAGES), before[1], rtol=0, atol=0)
    assert victim.fingerprint == before[0]
    assert [name for name, weight in weights.items() if weight.grad is not None] == [first]
    assert torch.equal(weights[first].grad, torch.ones_like(weights[first]))


def test_two_sides_of_a_detector_are_of_one_shape_and_may_be_tensors():
    trainer = Trainer(network="tiny", recipe=Recipe(epochs=1, learning_rate=0.05, batch_size=8), seed=0)
    small = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(
        InputError, match=r"^benign has .* \(3, 16, 16\) and ood of \(3, 8, 8\): resize them to one size"
    ):
        BinaryDetector.train(IMAGES, small, trainer)
    given = BinaryDetector.train(IMAGES[:8], flat(200, 8, seed=1).images, trainer).score(IMAGES)
    assert given.shape == (40,) and ((given >= 0) & (given <= 1)).all()
