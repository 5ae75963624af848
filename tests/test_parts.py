"""The list of a cut names the very images that the parts hold."""

import pytest
import torch
from layouts import WRITE, write_cifar10, write_gtsrb, write_image

from extractlib.data.decoding import _read
from extractlib.data.pixels import USUAL
from extractlib.data.sets import SETS
from extractlib.data.sources import Loader, parts_table
from extractlib.data.splits import Overlap
from extractlib.errors import InputError
from extractlib.store import Store


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gtsrb", {"tracks": 20}),
        ("cifar10", {"records": 30}),
        ("caltech256", {"count": 60}),
        ("tinyimagenet", {}),
        ("imagenet", {}),
        ("openimages", {"count": 40}),
    ],
)
def test_the_list_names_each_image_of_each_part(name, options, tmp_path):
    root, store = tmp_path / name, Store(tmp_path / "cache")
    WRITE[name](root, **options)
    loader = Loader(image_size=8, store=store, folders={name: root})
    rows = parts_table(loader, name, seed=3)[0].to_dict("records")
    parts = (loader.task if SETS[name].role == "task" else loader.pool)(name, seed=3)
    shown = list(dict.fromkeys(row["part"] for row in rows))
    assert shown == [part for part in parts if part in shown]
    for part in shown:
        images = parts[part]
        paths = [row["path"] for row in rows if row["part"] == part]
        pixels = [torch.from_numpy(_read(root, path, size=8, reading=USUAL).pixels.copy()) for path in paths]
        assert len(pixels) == len(images) and all(map(torch.equal, pixels, images.images))
        if images.labels is not None:
            classes = [row["class"] for row in rows if row["part"] == part]
            assert classes == [images.classes[label] for label in images.labels]


def test_a_group_lies_in_one_part(tmp_path):
    write_gtsrb(tmp_path, tracks=20, frames=3)
    loader = Loader(image_size=8, store=Store(tmp_path / "cache"), folders={"gtsrb": tmp_path})
    table, _ = parts_table(loader, "gtsrb", seed=0)
    parts = table[table["group"] != ""].groupby("group")["part"].agg(list)
    assert len(parts) == 40
    assert all(len(frames) == 3 and len(set(frames)) == 1 for frames in parts)


def test_the_command_prints_the_list(command, tmp_path):
    for label in ("cat", "dog"):
        for seed in range(30):
            write_image(tmp_path / "pets" / label / f"{seed}.png", seed=seed + 100 * (label == "dog"))
    status, printed, _ = command("data", "parts", f"folder:{tmp_path / 'pets'}", "--size", "8")
    lines = printed.splitlines()
    assert status == 0 and lines[0] == "part,path,class,group" and len(lines) == 61
    assert {line.split(",")[0] for line in lines[1:]} == {"victim", "detector", "adversary", "validation", "test"}
    write_cifar10(tmp_path / "cifar10", records=30)
    first, second, other = (
        command("data", "parts", "cifar10", "--data", str(tmp_path), "--seed", seed)[1] for seed in "001"
    )
    assert first == second != other
    status, printed, errors = command("data", "parts", "signs")
    assert status == 2 and not printed and "signs is not stored in files" in errors
    status, _, errors = command("data", "parts", "gtsrb", "--data", str(tmp_path))
    assert status == 2 and "gtsrb is not available" in errors


def test_what_is_no_data_set_in_files_has_no_list(tmp_path):
    for name in ("objects", "cifar10/shifted"):
        with pytest.raises(InputError, match=f"{name} is not stored in files"):
            parts_table(Loader(image_size=8, store=Store(tmp_path)), name, seed=0)


def test_of_no_test_images_none_is_alike():
    assert str(Overlap(0, 0, 0, 0)).startswith("of 0 test images, 0 (0.0%) have a near-duplicate")
