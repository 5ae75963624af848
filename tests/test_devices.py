"""Devices: on a processor nothing changes, what is read ahead comes in order, and what is not there is refused."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from extractlib.data.images import Rows
from extractlib.errors import InputError
from extractlib.models import devices, networks
from extractlib.models.training import Recipe, fit, predict
from extractlib.tensors import own_draws

CPU = torch.device("cpu")
IMAGES = torch.randint(0, 256, (22, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(22) % 3


class Floats(nn.Module):
    """Makes floats of uint8 images."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images.float() - 127.5) / 63.75


def plain_network() -> nn.Module:
    """Return a network without batch normalization."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        convolution, head = nn.Conv2d(3, 8, 3, stride=2), nn.Linear(8 * 7 * 7, 3)
    return nn.Sequential(Floats(), convolution, nn.ReLU(), nn.Flatten(), head)


@pytest.mark.parametrize("images", [IMAGES, Rows(IMAGES, torch.arange(len(IMAGES)))])
def test_what_lies_elsewhere_goes_through_pinned_memory_batch_by_batch(images, monkeypatch):
    """The device "meta" stands for a GPU: it keeps shapes alone, so the values are compared on the way."""
    chosen, pinned = [torch.tensor([3, 1, 2]), torch.tensor([7]), torch.tensor([5, 5])], []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda batch: pinned.append(batch) or batch)
    for number, batch in enumerate(devices.batches(images, chosen, torch.device("meta")), start=1):
        assert (batch.device.type, len(pinned)) == ("meta", number)
        assert torch.equal(pinned[-1], IMAGES[chosen[number - 1]])


def test_memory_mapped_images_are_indexed_and_never_copied_whole(tmp_path):
    (tmp_path / "images").write_bytes(IMAGES.numpy().tobytes())
    mapped = torch.from_numpy(np.memmap(tmp_path / "images", np.uint8, "r+", shape=tuple(IMAGES.shape)))
    assert devices.placed(mapped, CPU).data_ptr() == mapped.data_ptr()
    chosen = [torch.tensor([3, 1]), torch.tensor([7])]
    for batch, indices in zip(devices.batches(mapped, chosen, CPU), chosen, strict=True):
        assert torch.equal(batch, IMAGES[indices])
    recipe = Recipe(epochs=1, learning_rate=0.1, batch_size=8)
    models = [fit(networks.build("tiny", classes=3, seed=0), kind, LABELS, recipe, seed=0) for kind in (mapped, IMAGES)]
    assert len({networks.fingerprint_of(model.state_dict()) for model in models}) == 1


@pytest.mark.parametrize("images", [IMAGES, Rows(IMAGES, torch.arange(len(IMAGES)))])
def test_images_that_a_gpu_has_no_room_for_stay_where_they_are(images, monkeypatch):
    free = int(IMAGES.nbytes / devices.RESIDENT) - 1
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, free))
    assert devices.placed(images, torch.device("cuda")) is images


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tpu", "unknown device 'tpu': use one of cpu, cuda"),
        ("cuda:one", "unknown device 'cuda:one'"),
        ("cuda", "device 'cuda' was requested, but there is no GPU that torch can use: use cpu"),
    ],
)
def test_a_device_that_is_not_there_is_refused(name, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=message):
        fit(
            networks.build("tiny", classes=3, seed=0),
            IMAGES,
            LABELS,
            Recipe(epochs=1, learning_rate=0.1),
            seed=0,
            device=name,
        )


def test_too_little_memory_is_told_in_one_line():
    text = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 14.75 GiB. Long advice."

    class Greedy(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, images):
            raise torch.OutOfMemoryError(text)

    expected = (
        "cpu has too little memory (Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 14.75 GiB) for {} images"
        " of 16 x 16"
    )
    with pytest.raises(InputError) as error:
        fit(Greedy(), IMAGES, LABELS, Recipe(epochs=1, learning_rate=0.1, batch_size=8), seed=0)
    told = expected.format("batches of 8")
    assert str(error.value) == f"{told}: lower the recipe's batch_size or the image_size"
    with pytest.raises(InputError) as error:
        predict(Greedy(), IMAGES)
    assert str(error.value).endswith(" for an image of 16 x 16: lower the image_size")


def test_predictions_use_fewer_images_at_a_time_where_the_memory_is_too_small():
    tried = []

    class Narrow(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, images):
            tried.append(len(images))
            if len(images) > 5:
                raise torch.OutOfMemoryError("Out of memory.")
            return images.flatten(1)[:, :2].float() * self.weight

    assert torch.equal(predict(Narrow(), IMAGES[:11], batch_size=16), IMAGES[:11].flatten(1)[:, :2].float())
    assert tried == [11, 8, 4, 4, 3]


def test_half_precision_is_used_where_the_processor_has_it():
    kind = devices.half("cpu")
    wide = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert kind is (torch.bfloat16 if wide else None)
    with devices.autocast(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (kind or torch.float32)


def test_a_trained_model_answers_in_its_own_precision(monkeypatch):
    """Wherever half precision saves time, on a GPU too: a fingerprint stands for the same answers on all devices."""
    monkeypatch.setattr(devices, "half", lambda device: torch.bfloat16)
    seen = []

    class Watched(nn.Linear):
        def forward(self, images):
            found = super().forward(images.flatten(1).float())
            seen.append(found.dtype)
            return found

    model = Watched(IMAGES[0].numel(), 3)
    fit(model, IMAGES, LABELS, Recipe(epochs=1, learning_rate=0.1, batch_size=22, shift=0), seed=0)
    predict(model, IMAGES)
    assert seen == [torch.bfloat16, torch.float32]


def test_an_old_gpu_computes_in_float16(monkeypatch):
    for there, kind in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, there=there: there)
        assert devices.half("cuda") is kind


def test_dropout_is_seeded_and_the_callers_generator_left_alone():
    network = nn.Sequential(*plain_network(), nn.Dropout(), nn.Linear(3, 3))
    start = {name: value.clone() for name, value in network.state_dict().items()}
    prints = []
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    for seed in (0, 0, 1):
        network.load_state_dict(start)
        fit(network, IMAGES[:8], LABELS[:8], Recipe(epochs=1, learning_rate=0.1, batch_size=8, shift=0), seed=seed)
        prints.append(networks.fingerprint_of(network.state_dict()))
    assert prints[0] == prints[1] != prints[2]
    assert torch.equal(torch.rand(2), expected)


def test_on_a_gpu_that_one_alone_is_seeded_and_given_back_as_it_was(monkeypatch, reseeded):
    done = []

    class Chosen:
        """Stands for `torch.cuda.device`, whose GPU `torch.cuda.manual_seed` seeds."""

        def __init__(self, device):
            self.device = device

        def __enter__(self):
            done.append(("choose", self.device))

        def __exit__(self, *_):
            done.append(("leave", self.device))

    @contextmanager
    def fork(devices):
        done.append(("fork", devices))
        yield

    monkeypatch.setattr(torch.cuda, "device", Chosen)
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: done.append(("seed", seed)))
    monkeypatch.setattr(torch.random, "fork_rng", fork)
    gpu, state = torch.device("cuda", 1), torch.get_rng_state()
    with own_draws(gpu, seed=5):
        first = torch.rand(2)
    assert done == [("fork", [gpu]), ("choose", gpu), ("seed", 5), ("leave", gpu)]
    assert torch.equal(first, torch.rand(2, generator=torch.Generator().manual_seed(5)))
    done.clear()
    with own_draws(CPU, seed=5):
        pass
    assert done == [("fork", [])] and reseeded == []
    torch.set_rng_state(state)


@pytest.mark.parametrize("seed", [0, 7, 2**63, np.int64(3)])
def test_draws_are_those_that_torch_seeds_and_the_callers_go_on(seed):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(int(seed))
    seeded = torch.rand(2)
    torch.manual_seed(3)
    with own_draws(CPU, seed=seed):
        assert torch.equal(torch.rand(2), seeded)
    assert torch.equal(torch.rand(2), expected)


def test_a_device_is_resolved(monkeypatch):
    assert devices.resolve("cpu") == CPU == devices.resolve(CPU)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.resolve("cuda") == torch.device("cuda")
    assert devices.resolve("cuda:0") == torch.device("cuda", 0)
    with pytest.raises(InputError, match="device 'cuda:2' was requested, but there are 2 GPUs: count from 0"):
        devices.resolve("cuda:2")


@pytest.mark.parametrize("deterministic", [False, True])
def test_deterministic_algorithms_stay_where_the_user_wants_them(deterministic, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", deterministic)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    with devices.tuned(torch.device("cuda")):
        assert torch.backends.cudnn.deterministic is deterministic
        assert torch.backends.cudnn.benchmark is not deterministic
        assert not torch.backends.cudnn.allow_tf32  # what else the user has set stays
    assert torch.backends.cudnn.benchmark is False
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    with devices.tuned(CPU):
        assert torch.backends.cudnn.benchmark is True


@pytest.mark.parametrize(
    ("named", "there", "chosen"), [(None, False, "cpu"), (None, True, "cuda"), ("cpu", True, "cpu"), ("", True, "cuda")]
)
def test_the_default_device_is_what_is_named_or_there(named, there, chosen, monkeypatch):
    monkeypatch.delenv("EXTRACTLIB_DEVICE", raising=False)
    if named is not None:
        monkeypatch.setenv("EXTRACTLIB_DEVICE", named)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert devices.default_device() == chosen


def test_a_model_is_where_its_first_weight_is():
    assert devices.device_of(nn.Linear(2, 2)) == CPU
    assert devices.device_of(nn.Sequential(nn.ReLU(), nn.Linear(2, 2, device="meta"))).type == "meta"
    assert devices.device_of(nn.ReLU()) == CPU


def test_training_and_prediction_leave_a_model_where_it_was_asked_for(monkeypatch):
    """No environment variable has a say below a program's outermost layer."""
    monkeypatch.setenv("EXTRACTLIB_DEVICE", "cuda:99")
    model = fit(
        networks.build("tiny", classes=3, seed=0),
        IMAGES,
        LABELS,
        Recipe(epochs=1, learning_rate=0.1, batch_size=8),
        seed=0,
    )
    assert devices.device_of(model) == CPU and not model.training
    assert predict(model, IMAGES).shape == (22, 3)
