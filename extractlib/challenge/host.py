"""Creates a challenge: a folder with a secret, all that follows from it, a key per team and a TOML file of the rules.

The folder holds ``challenge.toml``, ``keys.csv``, ``secret``, ``victim.safetensors``, ``hidden.safetensors`` and, if
no other database is named, ``challenge.db``; later also ``submissions/``. All but the first are for the host alone.
"""

import csv
import json
import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import mkdtemp

import torch
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

import extractlib as xl
from extractlib.api.granularity import Granularity
from extractlib.api.keys import Keys, check_team
from extractlib.attacks.knockoff import SURROGATE
from extractlib.attacks.own_images import train_alone
from extractlib.challenge.scoring import CONSTANT, FREE, Hidden, public_part
from extractlib.data.drawn.canvas import seed_from
from extractlib.data.drawn.secret import SECRET_BYTES, SecretTask
from extractlib.errors import InputError, check_positive
from extractlib.models.classifier import Classifier
from extractlib.models.fitted import Trainer
from extractlib.models.training import Recipe
from extractlib.serve import Settings
from extractlib.store import default_store

NAME = "challenge"
"""The name of the victim in the TOML and in the meter."""

TOML, KEYS, SECRET, VICTIM, HIDDEN = "challenge.toml", "keys.csv", "secret", "victim.safetensors", "hidden.safetensors"

NETWORK, WEIGHTS = "resnet", "shipped-B"
"""The victim's architecture, and the weights that its training starts from, which are not the attacks' default."""

COPIES = (100, 1_000)
"""Queries of the host's own copies, besides one with the whole budget: those of the starter notebook, and ten times."""


class ChallengeSettings(BaseModel):
    """The rules of a challenge for its teams; the budget is set for the victim.

    Attributes:
        title: The title of the scoreboard.
        deadline: When copies stop being accepted and the final scores are shown.
        submissions: Copies per team that are scored each day, in UTC.
        queries_a_copy: Queries that a team must have been charged for, per copy after the first.
        megabytes: Largest size of a copy, in 2^20 bytes.
        seconds: Time within which a copy must answer all hidden images.
        memory: Memory that it may use for that, in 2^20 bytes.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    title: str
    deadline: AwareDatetime
    submissions: int = Field(default=3, ge=1, le=1_000)
    queries_a_copy: int = Field(default=50, ge=0)
    megabytes: int = Field(default=64, ge=1, le=1_024)
    seconds: int = Field(default=120, ge=1, le=3_600)
    memory: int = Field(default=4_096, ge=512, le=65_536)


class ChallengeFile(Settings):
    """The contents of ``challenge.toml``: the settings of a server, and those of the challenge."""

    challenge: ChallengeSettings


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a challenge is created from.

    Attributes:
        teams: Their names.
        deadline: When copies stop being accepted, with a time zone.
        title: The title of the scoreboard.
        budget: Queries per team.
        answers: What an answer shows.
        submissions: Copies per team that are scored each day.
        rate: Requests per minute and team.
        classes: Number of the victim's classes.
        database: File in the folder, or address, for meter, keys and submissions.
        victim_images, hidden_images, free_images: How many images the victim is trained on, copies are scored on, and
            each model without queries is trained on.
        free: How many models without queries there are, each with its own secret.
        victim_recipe, surrogate_recipe: How the victim and the host's models are trained.

    Raises:
        InputError: A value is not allowed.
    """

    teams: Sequence[str]
    deadline: datetime
    title: str = "Model extraction challenge"
    budget: int = 5_000
    answers: str = "full"
    submissions: int = 3
    rate: int = 120
    classes: int = 20
    database: str = "challenge.db"
    victim_images: int = 4_000
    hidden_images: int = 4_000
    free_images: int = 4_000
    free: int = 3
    victim_recipe: Recipe = Recipe(epochs=12, learning_rate=0.05)
    surrogate_recipe: Recipe = SURROGATE

    def __post_init__(self) -> None:
        for team in self.teams:
            check_team(team)
        check_positive("budget", self.budget)
        check_positive("number of models without queries", self.free)
        if self.hidden_images < 10 * self.classes:
            raise InputError(
                f"{self.hidden_images} hidden images of {self.classes} classes: expected at least ten of each"
            )
        Granularity.parse(self.answers).record(self.classes)
        ChallengeFile.of(self.settings(), where="the challenge")

    def settings(self) -> dict[str, object]:
        """Return the contents of the TOML, as plain values."""
        task = SecretTask(bytes(SECRET_BYTES), self.classes)
        victim = {
            "weights": VICTIM,
            "network": NETWORK,
            "classes": list(task.classes),
            "answers": self.answers,
            "budget": self.budget,
        }
        rules = {"title": self.title, "deadline": self.deadline, "submissions": self.submissions}
        return {"database": self.database, "rate": self.rate, "victims": {NAME: victim}, "challenge": rules}


def make(folder: Path, plan: Plan, *, secret: bytes | None = None) -> None:
    """Write the folder of a challenge; this takes some minutes.

    Args:
        folder: The folder, which must not exist yet.
        plan: What the challenge is created from.
        secret: What the classes and the hidden images follow from; random if None.

    Raises:
        InputError: The folder already exists, or a value is not allowed.
    """
    if folder.exists():
        raise InputError(f"{folder} already exists: name a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _fill(partial, plan, secrets.token_bytes(SECRET_BYTES) if secret is None else secret)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read(folder: Path) -> ChallengeFile:
    """Return the settings of a challenge.

    Raises:
        InputError: The folder holds none.
    """
    settings = ChallengeFile.read(folder / TOML)
    if list(settings.victims) != [NAME]:
        raise InputError(f"{folder / TOML} serves {', '.join(settings.victims)}: expected one victim called {NAME}")
    return settings


def _fill(folder: Path, plan: Plan, secret: bytes) -> None:
    _private(folder / SECRET, secret.hex() + "\n")
    task = SecretTask(secret, plan.classes)
    victim = xl.Victim.train(
        task.draw("victim", plan.victim_images), network=NETWORK, recipe=plan.victim_recipe, backbone=WEIGHTS
    )
    victim.save(folder / VICTIM)
    hidden = task.draw("hidden", plan.hidden_images)
    images, labels = hidden.images[:], torch.as_tensor(hidden.labels)
    own = {name: model.predict(images) for name, model in _baselines(task, victim, plan).items()}
    public = public_part(len(images), seed_from("public", secret))
    known = own | {CONSTANT: torch.zeros_like(labels)}
    made = Hidden(images, labels, public, victim.predict(images), known)
    made.scores(made.victim)  # refuses a victim that is no better than a model without queries
    made.save(folder / HIDDEN)
    keys = Keys(plan.database if "://" in plan.database else folder / plan.database)
    rows = [(team, keys.add(team)) for team in plan.teams]
    keys.close()
    with _private(folder / KEYS).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("team", "key"), *rows])
    (folder / TOML).write_text(_toml(plan.settings()), encoding="utf-8")


def _baselines(task: SecretTask, victim: xl.Victim, plan: Plan) -> dict[str, Classifier]:
    """Return the host's own models, from images of other secrets, random queries, and the task's own images."""
    models: dict[str, Classifier] = {}
    for number in range(plan.free):
        other = SecretTask(secrets.token_bytes(SECRET_BYTES), plan.classes).draw("free", plan.free_images)
        models[f"{FREE}, secret {number + 1}"] = xl.Victim.train(other, network=NETWORK, recipe=plan.victim_recipe)
    pool = xl.load("atlas", store=default_store()).queries
    budget = min(plan.budget, len(pool))
    for count in sorted({min(number, budget) for number in (*COPIES, budget)}):
        api = xl.PredictionAPI(victim, answers=plan.answers, budget=count)
        models[f"random Knockoff, {count:,} queries"] = xl.attacks.Knockoff(budget=count)(
            api, pool, surrogate=NETWORK, recipe=plan.surrogate_recipe
        )
    own = task.draw("control", budget)
    trainer = Trainer(network=NETWORK, recipe=plan.surrogate_recipe, seed=0, backbone="shipped", progress=True)
    models["independent control"] = xl.Surrogate(train_alone(own, trainer, budget=budget), classes=task.classes)
    return models


def _private(path: Path, text: str = "") -> Path:
    """Write a file that only the owner can read, and return its path."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    return path


def _toml(values: dict[str, object], table: str = "") -> str:
    """Return plain values as TOML: JSON's text and numbers are also valid in TOML."""
    lines = [f"[{table}]"] if table else []
    lines += [f"{name} = {_value(value)}" for name, value in values.items() if not isinstance(value, dict)]
    tables = [_toml(value, f"{table}.{name}".lstrip(".")) for name, value in values.items() if isinstance(value, dict)]
    return "\n".join([*lines, "", *tables])


def _value(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else json.dumps(value, ensure_ascii=False)
