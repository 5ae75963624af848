"""What a server serves, read from a TOML file, and the APIs made from it::

    database = "meter.db"           # next to this file; or an address: postgresql+psycopg://…
    rate = 60                       # requests per minute, for each team

    [victims.signs]                 # ships with the package; one server serves any number of victims
    answers = "top-3"
    budget = 10_000                 # for each team
    price = 0.001
    detector = "atlas"              # the paper's detector is trained against this pool
    policy = "shuffle"

    [victims.birds]
    weights = "birds.safetensors"   # next to this file
    network = "resnet"
    classes = ["jay", "wren"]
    watermark = 0.005               # share of images that are answered wrongly

    [victims.mine]
    task = "folder:photos"          # trained on these images when first served

    [teams.red]                     # settings left out here are as for all teams
    budget = 20_000
    rate = 600

Unknown keys are refused.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

import extractlib as xl
from extractlib.api.batching import ServedAPI
from extractlib.api.granularity import Granularity
from extractlib.api.keys import Keys, check_team
from extractlib.api.meter import Meter, Terms
from extractlib.api.server import Limits
from extractlib.data.sources import FOLDER, Source
from extractlib.defenses.policies import policy
from extractlib.defenses.watermark import KeyedSample, Mislabel
from extractlib.errors import InputError
from extractlib.models.fitted import Trainer
from extractlib.store import default_store

SIZE = 32
"""Height and width of a victim's images if nothing says otherwise, and of all drawn images."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class VictimSettings(_Table):
    """A victim and the terms for its clients.

    Attributes:
        task: What it is trained on: a drawn task, whose victim ships, a published set or ``"folder:PATH"``; the
            victim's name if neither this nor `weights` is given.
        weights: Its weights, as safetensors.
        network: Its architecture.
        classes: With `weights`, the name of each class.
        size: Height and width of its images, in pixels; if None, those that the weights name, or else `SIZE`.
        answers: What an answer shows.
        budget: Queries per team; None for no limit.
        price: Cost of one query.
        detector: A pool; the paper's detector is trained to distinguish the task's images from it.
        policy: How a detected query is answered.
        watermark: Share of the images that are answered wrongly, always the same ones; not possible with a detector.
    """

    task: str | None = None
    weights: str | None = None
    network: str = "resnet"
    classes: list[str] | None = None
    size: int | None = None
    answers: str = "full"
    budget: int | None = None
    price: float = 0.0
    detector: str | None = None
    policy: str | None = None
    watermark: float | None = None


class TeamSettings(_Table):
    """The settings for one team that differ from those for all others.

    Attributes:
        budget: Queries it may send to each victim.
        price: Cost of one query.
        rate: Requests per minute.
    """

    budget: int | None = None
    price: float | None = None
    rate: int | None = None


class Settings(_Table):
    """What a server serves.

    Attributes:
        database: File of the meter and the keys, or an SQLAlchemy address.
        host, port: The address and the port it listens on.
        images, megabytes, seconds, bodies, rate: Limits on requests (see `Limits`).
        victims: Each victim by its name.
        teams: Teams with settings of their own.
    """

    database: str = "extractlib.db"
    host: str = "127.0.0.1"
    port: int = 8000
    images: int = 1024
    megabytes: int = 32
    seconds: int = 60
    bodies: int = 16
    rate: int | None = None
    victims: dict[str, VictimSettings] = {}
    teams: dict[str, TeamSettings] = {}

    @property
    def limits(self) -> Limits:
        """The limits on requests."""
        rates = {name: team.rate for name, team in self.teams.items() if team.rate is not None}
        names = ("images", "megabytes", "seconds", "bodies", "rate")
        return Limits(**{name: getattr(self, name) for name in names}, rates=rates)

    @classmethod
    def of(cls, values: Mapping[str, Any], *, where: str) -> Self:
        """Return settings from plain values.

        Args:
            values: The contents of a TOML file.
            where: Where they come from, for errors.

        Raises:
            InputError: A value is unknown or of the wrong type, or a name cannot be used.
        """
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            place = tuple(map(str, first["loc"]))
            remedy = first["msg"]
            if first["type"] == "extra_forbidden":
                remedy = f"there is no such setting: use one of {', '.join(cls._names_beside(place))}"
            raise InputError(f"{where}: {'.'.join(place)}: {remedy}") from None
        for name in (*settings.teams, *settings.victims):
            check_team(name)
        for name in settings.victims:
            if not name.isidentifier():
                raise InputError(f"{where}: a victim is called {name!r}: use letters, digits and underscores")
        return settings

    @classmethod
    def _names_beside(cls, place: Sequence[str]) -> list[str]:
        """Return the settings of a table, given the place of one in it, such as ("victims", "signs", "budget")."""
        table: Any = cls if len(place) == 1 else cls.model_fields[place[0]].annotation
        for inner in get_args(table)[-1:]:  # of a table of tables
            table = inner
        return list(table.model_fields)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the settings in a TOML file, with its paths taken relative to the folder of the file.

        Raises:
            InputError: It cannot be read, or `of` refuses it.
        """
        try:
            settings = cls.of(tomllib.loads(path.read_text(encoding="utf-8")), where=str(path))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InputError(f"{path} cannot be read as TOML ({error}): see extractlib.serve") from None

        def beside(place: str) -> str:
            return str(path.parent / Path(place).expanduser())

        if "://" not in settings.database:
            settings.database = beside(settings.database)
        for victim in settings.victims.values():
            if victim.weights is not None:
                victim.weights = beside(victim.weights)
            for images in ("task", "detector"):
                named = getattr(victim, images)
                if named is not None and named.startswith(FOLDER):
                    setattr(victim, images, f"{FOLDER}{beside(named.removeprefix(FOLDER))}")
        return settings


def victims_of(settings: Settings) -> dict[str, xl.Victim]:
    """Return each victim by its name; those that do not ship are trained first, once all settings are checked.

    Neither opens the database: what is refused here leaves none behind.

    Raises:
        InputError: A setting does not fit.
    """
    if not settings.victims:
        raise InputError("there is no victim to serve: name one, as in --victim signs or [victims.signs]")
    _check(settings)
    victims = {name: _victim(name, chosen) for name, chosen in settings.victims.items()}
    for name, victim in victims.items():
        Granularity.parse(settings.victims[name].answers).record(len(victim.classes))
    return victims


def apis_of(settings: Settings, keys: Keys, victims: Mapping[str, xl.Victim] | None = None) -> dict[str, ServedAPI]:
    """Return the API of each victim by its name.

    Args:
        settings: What is served.
        keys: Whose secrets the policies use.
        victims: What `victims_of` returns, if already made.

    Raises:
        InputError: A setting does not fit.
    """
    victims = victims_of(settings) if victims is None else victims
    meter = Meter(settings.database)
    return {name: _api(name, victim, settings, keys, meter) for name, victim in victims.items()}


def _check(settings: Settings) -> None:
    """Refuse settings that would otherwise fail only after a victim was trained or a database was created."""
    _ = settings.limits  # which checks them
    for team in settings.teams.values():
        Terms(budget=team.budget, price=team.price or 0.0)
    for name, chosen in settings.victims.items():
        _check_victim(name, chosen)
        _check_defense(name, chosen)
        Terms(budget=chosen.budget, price=chosen.price)
        Granularity.parse(chosen.answers)


def _api(name: str, victim: xl.Victim, settings: Settings, keys: Keys, meter: Meter) -> ServedAPI:
    chosen = settings.victims[name]
    terms = {
        f"{name}/{team}": Terms(
            budget=chosen.budget if own.budget is None else own.budget,
            price=chosen.price if own.price is None else own.price,
        )
        for team, own in settings.teams.items()
    }
    return ServedAPI(
        victim,
        answers=chosen.answers,
        budget=chosen.budget,
        price=chosen.price,
        meter=meter,
        terms=terms,
        **_defense(name, chosen, keys.secret(name)),
    )


def _check_victim(name: str, chosen: VictimSettings) -> None:
    if chosen.weights is not None:
        if chosen.task is not None or chosen.classes is None:
            raise InputError(f"victim {name!r}: with weights, give the classes and no task")
        return
    if chosen.classes is not None:
        raise InputError(f"victim {name!r}: classes belong to weights: leave them out, or give weights")
    if not Source.parse(chosen.task or name).in_files and chosen.size not in (None, SIZE):
        raise InputError(f"victim {name!r}: size is {chosen.size}, but drawn images have {SIZE} pixels: leave it out")


def _victim(name: str, chosen: VictimSettings) -> xl.Victim:
    if chosen.weights is not None:
        own = {} if chosen.size is None else {"image_shape": (3, chosen.size, chosen.size)}
        path = Path(chosen.weights)
        victim = xl.Victim.load(path, network=chosen.network, classes=chosen.classes, name=name, **own)
        victim.image_shape = victim.image_shape or (3, SIZE, SIZE)
        return victim
    task = chosen.task or name
    if Source.parse(task).in_files or chosen.network != "resnet":
        return xl.Victim.train(_parts(task, chosen).victim, network=chosen.network, store=default_store())
    return xl.load_victim(task)


def _parts(source: str, chosen: VictimSettings, *, role: str = "task") -> Any:
    return xl.load(source, role=role, store=default_store(), image_size=SIZE if chosen.size is None else chosen.size)


def _check_defense(name: str, chosen: VictimSettings) -> None:
    any_secret = bytes(32)
    if chosen.watermark is not None:
        if chosen.detector is not None or chosen.policy is not None:
            raise InputError(f"victim {name!r} has a watermark and a detector or a policy: give only one of them")
        KeyedSample(any_secret, rate=chosen.watermark)
    if (chosen.detector is None) != (chosen.policy is None):
        raise InputError(f"victim {name!r}: detector and policy belong together: give both or neither")
    if chosen.detector is not None and chosen.policy is not None:
        if chosen.weights is not None:
            raise InputError(f"victim {name!r}: a detector needs the task's images: name a task instead of weights")
        Source.parse(chosen.detector)
        policy(chosen.policy, secret=any_secret)


def _defense(name: str, chosen: VictimSettings, secret: bytes) -> dict[str, Any]:
    """Return detector and policy as arguments of the API."""
    if chosen.watermark is not None:
        return {"detector": KeyedSample(secret, rate=chosen.watermark), "policy": Mislabel(secret)}
    if chosen.detector is None or chosen.policy is None:
        return {}
    # Here, since it also imports the other detectors' library.
    from extractlib.defenses.detectors import DETECTOR, BinaryDetector

    benign = _parts(chosen.task or name, chosen).detector
    ood = _parts(chosen.detector, chosen, role="pool").detector
    trainer = Trainer(network="resnet", recipe=DETECTOR, seed=0, backbone="shipped", store=default_store())
    detector = BinaryDetector.train(benign, ood, trainer)
    return {"detector": detector, "policy": policy(chosen.policy, secret=secret)}
