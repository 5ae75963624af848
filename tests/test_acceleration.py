"""Acceleration: on a processor nothing changes, what is read ahead comes in order, two processes train as one."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from extractlib.data.images import Rows
from extractlib.errors import InputError
from extractlib.models import devices as acceleration
from extractlib.models import networks
from extractlib.models.training import Recipe, fit, predict

CPU = torch.device("cpu")
IMAGES = torch.randint(0, 256, (22, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(22) % 3


def plain_network() -> nn.Module:
    """Return a network without batch normalisation, which two processors do apart."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        convolution, head = nn.Conv2d(3, 8, 3, stride=2), nn.Linear(8 * 7 * 7, 3)
    return nn.Sequential(networks.Normalise(), convolution, nn.ReLU(), nn.Flatten(), head)


def test_what_is_read_ahead_comes_in_order_and_is_at_most_two_ahead():
    loaded = []

    def load(item):
        loaded.append(item)
        return -item

    for number, value in enumerate(acceleration.read_ahead(load, range(10))):
        time.sleep(0.01)
        assert value == -number
        assert len(loaded) <= number + 3  # the one in hand and two more
    assert loaded == list(range(10))


def test_an_error_while_reading_ahead_comes_through():
    def load(item):
        if item == 3:
            raise OSError("gone")
        return item

    found = []
    with pytest.raises(OSError, match="gone"):
        for value in acceleration.read_ahead(load, range(10)):
            found.append(value)
    assert found == [0, 1, 2]


def test_memory_mapped_images_are_indexed_and_never_copied_whole(tmp_path):
    (tmp_path / "images").write_bytes(IMAGES.numpy().tobytes())
    mapped = torch.from_numpy(np.memmap(tmp_path / "images", np.uint8, "r+", shape=tuple(IMAGES.shape)))
    assert acceleration.placed(mapped, CPU).data_ptr() == mapped.data_ptr()
    chosen = [torch.tensor([3, 1]), torch.tensor([7])]
    for batch, indices in zip(acceleration.batches(mapped, chosen, CPU), chosen, strict=True):
        assert torch.equal(batch, IMAGES[indices])
    recipe = Recipe(epochs=1, learning_rate=0.1, batch_size=8)
    models = [fit(networks.build("tiny", classes=3, seed=0), kind, LABELS, recipe, seed=0) for kind in (mapped, IMAGES)]
    assert len({networks.fingerprint_of(model.state_dict()) for model in models}) == 1


@pytest.mark.parametrize("images", [IMAGES, Rows(IMAGES, torch.arange(len(IMAGES)))])
def test_images_that_a_gpu_has_no_room_for_stay_where_they_are(images, monkeypatch):
    free = int(IMAGES.nbytes / acceleration.RESIDENT) - 1
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, free))
    assert acceleration.placed(images, torch.device("cuda")) is images


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tpu", "unknown device 'tpu': use one of cpu, cuda"),
        ("cuda:one", "unknown device 'cuda:one'"),
        ("cuda", "device 'cuda' is asked for and there is no GPU that torch can use: use cpu"),
    ],
)
def test_a_device_that_is_not_there_is_refused(name, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=message):
        fit(networks.build("tiny", classes=3, seed=0), IMAGES, LABELS, Recipe(1, 0.1), seed=0, device=name)


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
        fit(Greedy(), IMAGES, LABELS, Recipe(1, 0.1, batch_size=8), seed=0)
    told = expected.format("batches of 8")
    assert str(error.value) == f"{told}: lower the recipe's batch_size or the image_size"
    with pytest.raises(InputError) as error:
        predict(Greedy(), IMAGES)
    assert str(error.value).startswith(expected.format("512"))


def test_half_precision_is_used_where_the_processor_has_it():
    kind = acceleration.half("cpu")
    assert kind is (torch.bfloat16 if acceleration.has_bfloat16("cpu") else None)
    with acceleration.autocast(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (kind or torch.float32)


def test_an_old_gpu_computes_in_float16(monkeypatch):
    for there, kind in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, there=there: there)
        assert acceleration.half("cuda") is kind


def test_dropout_is_seeded_and_the_callers_generator_left_alone():
    network = nn.Sequential(*plain_network(), nn.Dropout(), nn.Linear(3, 3))
    start = {name: value.clone() for name, value in network.state_dict().items()}
    prints = []
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    for seed in (0, 0, 1):
        network.load_state_dict(start)
        fit(network, IMAGES[:8], LABELS[:8], Recipe(1, 0.1, batch_size=8, shift=0), seed=seed)
        prints.append(networks.fingerprint_of(network.state_dict()))
    assert prints[0] == prints[1] != prints[2]
    assert torch.equal(torch.rand(2), expected)


def test_a_model_answers_on_another_device_and_stays_where_it_is():
    model = networks.build("resnet-34-32", classes=3, seed=0).eval()
    assert acceleration.on_device(model, CPU) is model
    there = acceleration.on_device(model, torch.device("meta"))(IMAGES.to("meta"))
    assert (there.device.type, there.shape) == ("meta", (22, 3))
    assert {tensor.device for tensor in model.state_dict().values()} == {CPU}


TOGETHER = """
import sys, torch
sys.path[:0] = {path!r}
from safetensors.torch import save_file
from test_acceleration import IMAGES, LABELS, plain_network, TOGETHER_RECIPE
from extractlib.models.devices import joined, ranks
from extractlib.models.training import fit
with joined("cpu") as device:
    model = fit(plain_network(), IMAGES, LABELS, TOGETHER_RECIPE, seed=0, device=device)
    state = {{name: value.contiguous() for name, value in model.state_dict().items()}}
    save_file(state, sys.argv[1] + "/%d of %d.safetensors" % ranks())
"""
TOGETHER_RECIPE = Recipe(epochs=3, learning_rate=0.02, batch_size=7, flip=True, crop=True)
"""The last of four batches has one image, and no batch falls into equal halves."""


def test_two_processes_train_what_one_does(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(TOGETHER.format(path=sys.path))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(script), str(tmp_path)], check=True, timeout=600, env=environment)
    alone = fit(plain_network(), IMAGES, LABELS, TOGETHER_RECIPE, seed=0).state_dict()
    fresh = plain_network().state_dict()
    # bfloat16, where the processor has it, keeps eight bits of a product.
    allowed = 0.03 if acceleration.has_bfloat16("cpu") else 1e-4
    for rank in range(2):
        state = load_file(tmp_path / f"{rank} of 2.safetensors")
        assert distance(state, alone) <= allowed * distance(fresh, alone)


def distance(first, second) -> float:
    return sum((first[name] - second[name]).square().sum() for name in second).sqrt().item()
