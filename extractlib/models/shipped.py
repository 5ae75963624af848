"""Victims that ship with the package: those of the five drawn tasks, trained at the scale `drawn` with seed 0."""

import json
from pathlib import Path

from extractlib.errors import check_choice
from extractlib.models.classifier import Victim

FOLDER = Path(__file__).parent / "weights" / "victims"


def load_victim(name: str) -> Victim:
    """Return the shipped victim of a drawn task.

    Args:
        name: ``"signs"``, ``"objects"``, ``"birds"``, ``"retina"`` or ``"things"``.

    Raises:
        InputError: No victim of that name ships.

    Examples:
        >>> import extractlib as xl
        >>> xl.load_victim("retina").classes
        ('no retinopathy', 'mild', 'moderate', 'severe', 'proliferative')
    """
    check_choice("shipped victim", name, sorted(path.stem for path in FOLDER.glob("*.json")))
    card = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    options = {"image_shape": tuple(card["image_shape"]), "name": name}
    return Victim.load(FOLDER / f"{name}.safetensors", network=card["network"], classes=card["classes"], **options)
