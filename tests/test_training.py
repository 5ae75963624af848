"""The training loop: it learns, repeats itself, and takes soft labels for what they are."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from extractlib.data import drawn
from extractlib.errors import InputError
from extractlib.models import networks, training
from extractlib.models.devices import half
from extractlib.models.training import Augmentation, Recipe, augment, crop_boxes, cropped, fit, learning_rate, predict

RECIPE = Recipe(epochs=4, learning_rate=0.05, batch_size=8)


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (24, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def labels():
    return torch.arange(24) % 3


def trained(images, targets, recipe=RECIPE, *, seed=0, **options):
    model = networks.build("tiny", classes=3, seed=1)
    return networks.fingerprint_of(fit(model, images, targets, recipe, seed=seed, **options).state_dict())


def test_sixteen_images_are_learned_by_heart(images, labels):
    recipe = Recipe(epochs=60, learning_rate=0.05, batch_size=16, shift=0)
    model = fit(networks.build("tiny", classes=3, seed=1), images[:16], labels[:16], recipe, seed=0)
    assert not model.training
    logits = predict(model, images[:16])
    assert logits.argmax(1).tolist() == labels[:16].tolist()
    assert F.cross_entropy(logits, labels[:16]).item() < 0.1


def test_one_step_by_hand():
    """A linear model, one batch, no momentum: the step is the learning rate times the softmax regression gradient."""

    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(3, 2))

        def forward(self, x):
            return x.float().mean((2, 3)) @ self.weight

    images = torch.zeros(2, 3, 2, 2, dtype=torch.uint8)
    images[0, 0], images[1, 1] = 1, 2
    soft = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    recipe = Recipe(epochs=1, learning_rate=0.1, batch_size=2, momentum=0.0, weight_decay=0.0, shift=0)
    model = fit(Linear(), images, soft, replace(recipe, schedule="cosine"), seed=0)
    # Both answers begin at (1/2, 1/2); the gradient is the mean of x (p - y).
    expected = -0.1 / 2 * torch.tensor([[0.5 - 0.9, 0.5 - 0.1], [2 * (0.5 - 0.2), 2 * (0.5 - 0.8)], [0, 0]])
    # bfloat16, where the processor has it, keeps eight bits of a product.
    relative = 2**-7 if half("cpu") else 1e-5
    assert torch.allclose(model.weight, expected, rtol=relative, atol=1e-7)


def test_one_hot_soft_labels_train_like_hard_labels(images, labels):
    model, twin = (networks.build("tiny", classes=3, seed=1) for _ in range(2))
    recipe = replace(RECIPE, epochs=1)
    fit(model, images, labels, recipe, seed=0)
    fit(twin, images, F.one_hot(labels, 3).float(), recipe, seed=0)
    for hard, soft in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(hard, soft, atol=1e-5)


def test_the_seed_decides_the_outcome(images, labels):
    assert trained(images, labels) == trained(images, labels) != trained(images, labels, seed=1)


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "step"])
def test_as_many_steps_as_some_epochs_have_are_the_same_training(images, labels, schedule):
    """24 images in batches of 8 are three steps an epoch; the fall after 2 epochs is one after 6 steps."""
    by_epochs = replace(RECIPE, schedule=schedule, step_epochs=2)
    by_steps = replace(by_epochs, epochs=0, steps=12, step_epochs=6)
    assert trained(images, labels, by_epochs) == trained(images, labels, by_steps)


@pytest.mark.parametrize("size", [2, 8, 12, 24])
def test_steps_and_their_learning_rates_do_not_depend_on_the_number_of_images(images, labels, size, monkeypatch):
    asked = []
    monkeypatch.setattr(training, "learning_rate", lambda recipe, share: asked.append(share) or 0.1)
    model, recipe = Watched(), Recipe(steps=7, learning_rate=0.1, batch_size=8)
    fit(model, images[:size], labels[:size] % 2, recipe, seed=0)
    assert len(model.images) == 7
    assert asked == [step / 7 for step in range(7)]
    assert (recipe.steps_for(size), replace(RECIPE, epochs=2).steps_for(9)) == (7, 4)


def test_the_step_schedule_counts_steps_where_steps_say_how_long():
    recipe = Recipe(steps=100, learning_rate=0.2, schedule="step", step_epochs=40)
    rates = [learning_rate(recipe, step / 100) for step in (0, 39, 40, 79, 80, 99)]
    assert rates == pytest.approx([0.2, 0.2, 0.02, 0.02, 0.002, 0.002])


def test_a_recipe_takes_the_augmentation_that_a_task_allows():
    recipe = Recipe(epochs=3, learning_rate=0.1, shift=2, flip=True, weight_decay=0.0)
    assert recipe.on(Augmentation()) == replace(recipe, shift=0, flip=False)
    assert recipe.on(Augmentation(shift=4, flip=True)) == replace(recipe, shift=4)


def test_no_global_generator_is_used(images, labels):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    trained(images, labels)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.arange(24) % 8, "the labels run from 0 to 7, but the network has 3 classes: number them from 0 to 2"),
        (torch.arange(24) % 3 - 1, "the labels run from -1 to 1, but the network has 3 classes: number them"),
        (torch.full((24, 4), 0.25), r"of shape \(24, 4\), but the network has 3 classes: give \(24, 3\), or whole"),
        (torch.ones(24), r"probabilities of shape \(24,\), but the network has 3 .* as labels, targets.long\(\)"),
        (torch.zeros(24, 3, dtype=torch.int64), r"labels of shape \(24, 3\): expected \(24,\), one for each image"),
        (list(range(24)), "the targets are a list: expected a tensor of labels, or of probabilities"),
    ],
)
def test_targets_of_other_classes_are_refused_before_a_weight_changes(images, targets, message):
    model, twin = (networks.build("tiny", classes=3, seed=1) for _ in range(2))
    with pytest.raises(InputError, match=message):
        fit(model, images, targets, RECIPE, seed=0)
    for weight, before in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(weight, before)


def test_what_does_not_return_logits_is_refused(images, labels):
    class Flat(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x.flatten(1).float())[:, 0]

    with pytest.raises(InputError, match=r"the network returned \(8,\): expected logits of shape \(n, classes\)"):
        fit(Flat(768, 3), images, labels, RECIPE, seed=0)


@pytest.mark.parametrize("kind", [torch.int32, torch.int16, torch.uint8])
@pytest.mark.parametrize("weighted", [False, True])
def test_labels_are_whole_numbers_of_any_type(images, labels, kind, weighted):
    recipe = replace(RECIPE, class_weights=weighted)
    assert trained(images, labels.to(kind), recipe) == trained(images, labels, recipe)


class Watched(torch.nn.Module):
    """Remembers each batch of images, and what dropout leaves of ones."""

    def __init__(self):
        super().__init__()
        self.bias, self.dropout = torch.nn.Parameter(torch.zeros(2)), torch.nn.Dropout()
        self.images, self.masks = [], []

    def forward(self, images):
        self.images.append(images.clone())
        self.masks.append(self.dropout(torch.ones(len(images), 5)))
        return self.bias.expand(len(images), -1)


def watched(seed: int) -> Watched:
    """Train three epochs on one image twelve times over, one batch an epoch: the order of the images shows nowhere."""
    image = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).expand(12, 3, 8, 8)
    recipe = Recipe(epochs=3, learning_rate=0.1, batch_size=12, shift=2, flip=True)
    return fit(Watched(), image, torch.arange(12) % 2, recipe, seed=seed)


@pytest.mark.parametrize("seed", [0, 5])
def test_augmentation_and_dropout_follow_seed_and_epoch(seed):
    model = watched(seed)
    image = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).expand(12, 3, 8, 8)
    for epoch, (batch, mask) in enumerate(zip(model.images, model.masks, strict=True)):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        torch.randperm(12, generator=generator)  # the order is drawn first
        moved = augment(image, Recipe(epochs=1, learning_rate=0.1, shift=2, flip=True), generator)
        assert torch.equal(batch, moved)
        with torch.random.fork_rng():
            torch.manual_seed(seed * 1_000_003 + epoch)
            assert torch.equal(mask, F.dropout(torch.ones(12, 5)))


def test_no_two_epochs_or_seeds_see_the_same():
    models = [watched(seed) for seed in (0, 1)]
    for kind in ("images", "masks"):
        drawn_at = [tensor for model in models for tensor in getattr(model, kind)]
        assert len({tensor.numpy().tobytes() for tensor in drawn_at}) == 6


def test_frozen_normalizations_keep_their_statistics(images, labels):
    frozen, free = (torch.nn.BatchNorm2d(3) for _ in range(2))
    frozen.requires_grad_(False)
    body = torch.nn.Sequential(frozen, free, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 3))
    fit(networks.FromFloats(body), images, labels, RECIPE, seed=0)
    assert frozen.running_var.tolist() == [1, 1, 1] and frozen.running_mean.tolist() == [0, 0, 0]
    assert (free.running_mean != 0).all()


def test_predict_leaves_each_part_in_its_mode_even_if_it_fails(images):
    class Failing(torch.nn.Module):
        def forward(self, x):
            raise KeyError("logits")

    still = torch.nn.BatchNorm2d(3)
    model = networks.FromFloats(torch.nn.Sequential(still, Failing()))
    model.train()
    still.eval()
    with pytest.raises(KeyError):
        predict(model, images)
    assert model.training and model.module[1].training and not still.training


def test_predict_does_not_depend_on_the_batch(images):
    model = networks.build("tiny", classes=3, seed=1)
    model.train()
    whole, pieces = predict(model, images), predict(model, images, batch_size=5)
    assert model.training
    assert (whole.shape, whole.dtype, whole.requires_grad) == ((24, 3), torch.float32, False)
    assert torch.allclose(whole, pieces, atol=1e-5)


@pytest.mark.parametrize(
    ("schedule", "progress", "share"),
    [
        ("one-cycle", 0.0, 0.04),
        ("one-cycle", 0.25, 1.0),
        ("one-cycle", 0.625, 0.5),
        ("one-cycle", 1.0, 0.0),
        ("cosine", 0.0, 1.0),
        ("cosine", 0.5, 0.5),
        ("cosine", 1.0, 0.0),
    ],
)
def test_learning_rate_at_known_points(schedule, progress, share):
    recipe = Recipe(epochs=1, learning_rate=0.2, schedule=schedule)
    assert learning_rate(recipe, progress) == pytest.approx(0.2 * share, abs=1e-12)


def test_shift_moves_whole_images_and_repeats_the_edge():
    image = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4).expand(200, 3, 4, 4)
    recipe = Recipe(epochs=1, learning_rate=0.1, shift=1)
    moved = augment(image, recipe, torch.Generator().manual_seed(0))
    padded = F.pad(image[:1].float(), (1, 1, 1, 1), mode="replicate")
    shifts = [padded[0, :, row : row + 4, column : column + 4] for row in range(3) for column in range(3)]
    seen = {next(number for number, shift in enumerate(shifts) if torch.equal(one.float(), shift)) for one in moved}
    assert seen == set(range(9))


def test_flip_mirrors_about_half():
    image = torch.arange(4, dtype=torch.uint8).view(1, 1, 1, 4).expand(1000, 3, 1, 4)
    recipe = Recipe(epochs=1, learning_rate=0.1, shift=0, flip=True)
    first = augment(image, recipe, torch.Generator().manual_seed(0))[:, 0, 0, 0]
    assert set(first.tolist()) == {0, 3}
    # Four standard deviations of a fair coin thrown 1,000 times.
    assert abs((first == 3).sum().item() - 500) < 4 * math.sqrt(250)


def test_nothing_is_augmented_without_being_asked():
    image = torch.arange(48, dtype=torch.uint8).view(1, 3, 4, 4)
    assert torch.equal(augment(image, Recipe(epochs=1, learning_rate=0.1, shift=0), torch.Generator()), image)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(0, 3, 8, 8, dtype=torch.uint8), "targets": torch.zeros(0)}, "n at least 2"),
        ({"targets": torch.zeros(3, dtype=torch.int64)}, "2 images and 3 targets"),
        ({"images": torch.zeros(2, 3, 8, 8)}, r"images are torch.float32 of shape \(2, 3, 8, 8\): expected uint8 of"),
        ({"images": torch.zeros(2, 1, 8, 8, dtype=torch.uint8)}, r"\(2, 1, 8, 8\): the package's networks take"),
    ],
)
def test_bad_input_is_refused(change, message):
    arguments = {
        "images": torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
        "targets": torch.zeros(2, dtype=torch.int64),
        "recipe": RECIPE,
    } | change
    with pytest.raises(InputError, match=message):
        fit(networks.build("tiny", classes=3, seed=0), **arguments, seed=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs is 0 and steps is 0: give one of them, at least 1"),
        ({"epochs": -1}, "epochs is -1 and steps is 0: give one"),
        ({"steps": 5}, "epochs is 1 and steps is 5: give one"),
        ({"epochs": 0, "steps": -5}, "epochs is 0 and steps is -5: give one"),
        ({"batch_size": 1}, "batch_size is 1: expected at least 2"),
        ({"schedule": "step"}, "step_epochs is 0: expected at least 1"),
        ({"schedule": "linear"}, "unknown schedule 'linear'"),
        ({"learning_rate": -0.1}, "learning_rate is -0.1: expected a number above 0"),
        ({"learning_rate": math.nan}, "learning_rate is nan: expected a number above 0"),
        ({"learning_rate": 0}, "learning_rate is 0: expected a number above 0"),
        ({"learning_rate": "0.1"}, "learning_rate is '0.1': expected a number above 0"),
        ({"momentum": -1}, "momentum is -1: expected a number of at least 0"),
        ({"weight_decay": math.inf}, "weight_decay is inf: expected a number of at least 0"),
        ({"epochs": 1.5}, "epochs is 1.5: expected a whole number"),
        ({"epochs": 0, "steps": True}, "steps is True: expected a whole number"),
        ({"batch_size": 2.0}, "batch_size is 2.0: expected a whole number"),
        ({"shift": -1}, "shift is -1: expected at least 0"),
    ],
)
def test_recipes_that_cannot_be_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Recipe(**({"epochs": 1, "learning_rate": 0.1} | settings))


def test_numbers_of_numpy_are_those_of_python():
    given = Recipe(epochs=np.int64(3), learning_rate=np.float32(0.5), batch_size=np.int32(8))
    assert repr(given) == repr(Recipe(epochs=3, learning_rate=0.5, batch_size=8))


def test_on_the_processor_training_is_a_plain_loop_bit_for_bit():
    """What the committed results rest on: this order of random draws and these operations, and no others."""
    signs = drawn.draw("signs", part="victim", size=129, seed=0)
    recipe = Recipe(epochs=2, learning_rate=0.05, batch_size=64, shift=2, flip=True)  # the last batch has one image
    images, labels, steps = signs.images, signs.labels, 3
    plain = networks.build("tiny", classes=43, seed=1).train()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
    for epoch in range(2):
        generator = torch.Generator().manual_seed(7 * 1_000_003 + epoch)
        order = torch.randperm(129, generator=generator)
        parts = [order[:64], order[64:128], torch.cat([order[128:], order[:1]])]
        for step, chosen in enumerate(parts, start=epoch * steps):
            share = step / 6
            rising = 0.05 * (0.04 + 0.96 * share / 0.25)
            falling = 0.05 * 0.5 * (1 + math.cos(math.pi * (share - 0.25) / 0.75))
            optimizer.param_groups[0]["lr"] = rising if share < 0.25 else falling
            count = len(chosen)
            mirrored = torch.rand(count, generator=generator) < 0.5
            batch = torch.where(mirrored.view(-1, 1, 1, 1), images[chosen].flip(3), images[chosen])
            moves = torch.randint(-2, 3, (2, count, 1), generator=generator)
            rows, columns = ((torch.arange(32) + move).clamp(0, 31) for move in moves)
            batch = batch.permute(0, 2, 3, 1)[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None]]
            with torch.autocast("cpu", torch.bfloat16, enabled=half("cpu") is not None):
                loss = F.cross_entropy(plain(batch.permute(0, 3, 1, 2)), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model = fit(networks.build("tiny", classes=43, seed=1), images, labels, recipe, seed=7)
    assert networks.fingerprint_of(model.state_dict()) == networks.fingerprint_of(plain.state_dict())
    with torch.inference_mode():
        expected = torch.cat([plain.eval()(part) for part in images.split(100)])
    assert torch.equal(predict(model, images, batch_size=100), expected)


@pytest.mark.parametrize(("epoch", "share"), [(0, 1), (59.99, 1), (60, 0.1), (99.99, 0.1), (120, 0.01)])
def test_the_step_schedule_falls_to_a_tenth_after_each_so_many_epochs(epoch, share):
    recipe = Recipe(epochs=150, learning_rate=0.01, schedule="step", step_epochs=60)
    assert learning_rate(recipe, epoch / 150) == pytest.approx(0.01 * share)


def test_plain_momentum_by_hand():
    """One weight, loss w in effect constant gradient g: steps -g, then -(1 + m) g; Nesterov adds m g to each."""

    class Bias(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = torch.nn.Parameter(torch.zeros(2))

        def forward(self, images):
            return self.bias.expand(len(images), -1)

    images, answers = torch.zeros(4, 3, 2, 2, dtype=torch.uint8), torch.tensor([[1.0, 0.0]]).expand(4, -1)
    recipe = Recipe(
        epochs=1,
        learning_rate=1e-3,
        batch_size=2,
        momentum=0.5,
        weight_decay=0,
        shift=0,
        schedule="step",
        step_epochs=1,
    )
    for nesterov, steps in ((False, 1 + 1.5), (True, 1.5 + 1.75)):
        model = fit(Bias(), images, answers, replace(recipe, nesterov=nesterov), seed=0)
        # The gradient of the first bias is softmax - 1 = -1/2, and changes by less than 0.1% here.
        assert model.bias[0].item() == pytest.approx(steps * 1e-3 / 2, rel=5e-3)


def test_crops_are_of_the_sizes_and_shapes_of_inceptions():
    boxes = crop_boxes(4_000, torch.Generator().manual_seed(0))
    left, top, width, height = boxes.T
    assert boxes.min() >= 0 and (left + width).max() <= 1 + 1e-6 and (top + height).max() <= 1 + 1e-6
    area, ratio = width * height, width / height
    assert 0.08 - 1e-6 <= area.min() < 0.09 and 0.95 < area.max() <= 1 + 1e-6
    assert 0.75 - 1e-5 <= ratio.min() < 0.76 and 1.32 < ratio.max() <= 4 / 3 + 1e-5
    # An area a above 3/4 fits with probability log(1/a) / log(4/3): the integral over those that fit gives the mean.
    assert area.mean() == pytest.approx(0.4777, abs=0.016)


@pytest.mark.parametrize("aspect", [2.0, 0.5])
def test_crops_of_oblong_images_have_the_same_shapes_in_pixels(aspect):
    _, _, width, height = crop_boxes(4_000, torch.Generator().manual_seed(0), aspect=aspect).T
    whole = (width == 1) & (height == 1)  # where none of ten tries fits
    assert whole.double().mean() < 0.01
    ratio = aspect * (width / height)[~whole]
    assert 0.75 - 1e-5 <= ratio.min() < 0.76 and 1.32 < ratio.max() <= 4 / 3 + 1e-5


def test_a_crop_follows_the_images_shape():
    """Of an image twice as wide as high the boxes are those of aspect 2."""
    images = torch.randint(0, 256, (4, 3, 8, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    boxes = crop_boxes(4, torch.Generator().manual_seed(1), aspect=2.0)
    recipe = Recipe(epochs=1, learning_rate=0.1, shift=0, crop=True)
    assert torch.equal(augment(images, recipe, torch.Generator().manual_seed(1)), cropped(images, boxes))


def test_a_crop_by_hand():
    image = torch.arange(0, 160, 10, dtype=torch.uint8).view(1, 1, 4, 4).expand(2, 3, 4, 4)
    whole, quarter = cropped(image, torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.5, 0.5, 0.5, 0.5]]))
    assert torch.equal(whole, image[0])
    # The lower right quarter holds 100, 110, 140, 150. Twice as large, its pixels lie a quarter and three quarters
    # between those; at the image's edge the last repeats, and at the box's the first mixes with what lies beyond.
    expected = torch.tensor([[87.5, 92.5, 97.5, 100], [107.5, 112.5, 117.5, 120], [127.5, 132.5, 137.5, 140]])
    assert (quarter[0, :3].float() - expected).abs().max() <= 0.5
    assert (quarter[0, 3].float() - torch.tensor([137.5, 142.5, 147.5, 150])).abs().max() <= 0.5
