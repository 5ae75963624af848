"""``extractlib serve`` and ``extractlib keys``: what a host types, and what a TOML file may say."""

import csv
import io
import re
import sys

import pytest
import torch
from linear_victim import linear_victim

import extractlib as xl
from extractlib.api import keys as api_keys
from extractlib.api.keys import Keys, teams_of
from extractlib.api.meter import Terms
from extractlib.api.server import running
from extractlib.errors import InputError, pip_install


@pytest.fixture
def hosted(command, monkeypatch):
    """Run ``extractlib serve`` up to where it would listen; return the application, how it is run and what it says."""

    def call(*words: str):
        ran = []
        monkeypatch.setattr("uvicorn.run", lambda app, **options: ran.append((app, options)))
        monkeypatch.setattr("logging.basicConfig", lambda **_: None)
        status, printed, errors = command("serve", *words)
        assert (status, errors) == (0, ""), errors
        return *ran[0], printed

    return call


def test_one_line_serves_a_shipped_victim_and_prints_the_lines_that_attack_it(hosted, tmp_path):
    words = ("--victim", "signs", "--answers", "top-3", "--budget", "5", "--database", str(tmp_path / "meter.db"))
    app, options, printed = hosted(*words)
    assert (options["host"], options["port"], options["access_log"]) == ("127.0.0.1", 8000, False)
    [key] = re.findall(r"shown only once: (\S+)", printed)
    assert f'  api = xl.connect("http://127.0.0.1:8000", key="{key}")\n' in printed
    assert '  surrogate = xl.attacks.Knockoff(budget=5)(api, xl.load("atlas").queries)\n' in printed
    images = xl.load("signs").test.images[:5]
    with running(app) as url:
        far = xl.connect(url, key=key, journal=tmp_path / "journal.db")
        got = far.query(images)
        expected = xl.PredictionAPI(xl.load_victim("signs"), answers="top-3").query(images)
        assert torch.equal(got.classes, expected.classes) and torch.equal(got.probabilities, expected.probabilities)
        assert (far.usage().remaining, far.classes) == (0, xl.load_victim("signs").classes)
        far.close()
    # Served again, the key is the same and is not shown.
    printed = hosted(*words)[2]
    assert printed.startswith("teams with keys: 1; extractlib keys add creates more\n") and key not in printed


TOML = """
database = "meter.db"
port = 8080
rate = 60

[victims.signs]
answers = "label"
budget = 7

[victims.mine]
weights = "mine.safetensors"
network = "cnn"
classes = ["jay", "wren"]
watermark = 0.5

[teams.blue]
budget = 9
rate = 600
"""


def test_a_file_says_what_does_not_fit_a_line(hosted, command, tmp_path):
    from extractlib.models.networks import NETWORKS

    network = next(iter(NETWORKS))
    (tmp_path / "serve.toml").write_text(TOML.replace('"cnn"', f'"{network}"'))
    module = xl.models.networks.build(network, classes=2, seed=0)
    xl.Victim(module, classes=["jay", "wren"]).save(tmp_path / "mine.safetensors")
    config = ("--config", str(tmp_path / "serve.toml"))
    key = command("keys", "add", "blue", *config)[1].strip()
    app, options, printed = hosted(*config, "--host", "0.0.0.0")
    assert (options["host"], options["port"]) == ("0.0.0.0", 8080)
    assert 'xl.connect("http://0.0.0.0:8080/mine", key="…")' in printed
    images = xl.load("signs").test.images[:4]
    with running(app) as url:
        signs = xl.connect(f"{url}/signs", key=key, journal=tmp_path / "signs.db")
        mine = xl.connect(f"{url}/mine", key=key, journal=tmp_path / "mine.db")
        assert str(signs.granularity) == "label" and mine.classes == ("jay", "wren")
        assert torch.equal(signs.query(images).labels, xl.load_victim("signs").predict(images))
        # The team's own budget, which the file gives.
        assert (signs.usage().remaining, mine.usage().budget) == (5, 9)
        # About half of the images are answered wrongly, and always the same.
        images = xl.load("signs").test.images[:9]
        told, true = (
            mine.query(images, request="a"),
            xl.PredictionAPI(xl.Victim(module, classes=["a", "b"])).query(images),
        )
        assert 0 < int((told.labels != true.labels).sum()) < 9
        signs.close()
        mine.close()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("port = 'x'", "port: Input should be a valid integer"),
        ("prot = 8000", "prot: there is no such setting: use one of database, host, port, images, megabytes, seconds"),
        (
            "[victims.signs]\nbudgets = 3",
            "victims.signs.budgets: there is no such setting: use one of task, weights, network, classes, size",
        ),
        ("[teams.red]\ntask = 'a'", "teams.red.task: there is no such setting: use one of budget, price, rate\n"),
        (
            "[victims.a]\nweights = 'a.safetensors'\nclasses = ['a', 'b']",
            "a.safetensors does not exist: name a file of weights, as save writes it",
        ),
        ("[victims.signs]\ndetector = 'none'\npolicy = 'deny'", "unknown task or pool 'none': use one of"),
        ("[victims.signs]\ndetector = 'atlas'\npolicy = 'none'", "'none': use one of"),
        ("[victims.signs]\nanswers = 'top-99'", "top-99"),
        ("[victims.signs]\nbudget = 0", "budget is 0: expected a whole number from 1 to"),
        ("[victims.signs]\nbudget = true", "victims.signs.budget: Input should be a valid integer"),
        ("[victims.signs]\nanswers = 'top-0'", "unknown granularity 'top-0'"),
        ("[victims.signs]\ndetector = 'atlas'", "victim 'signs': detector and policy belong together"),
        (
            "[victims.signs]\nwatermark = 0.1\npolicy = 'deny'",
            "victim 'signs' has a watermark and a detector or a poli",
        ),
        ("[victims.signs]\nwatermark = 2.0", "rate is 2.0: expected a share above 0 and below 1"),
        ("[victims.nothing]", "'nothing'"),
        ("[victims.a]\nweights = 'a'", "victim 'a': with weights, give the classes and no task"),
        ("[victims.signs]\nclasses = ['a', 'b']", "victim 'signs': classes belong to weights: leave them out"),
        ("[victims.signs]\nsize = 64", "victim 'signs': size is 64, but drawn images have 32 pixels: leave it out"),
        ("[victims.signs]\ntask = 'folder:x'\nsize = 0", "image size is 0: expected a whole number from 1"),
        ("[victims.'a b']", "a victim is called 'a b': use letters, digits and underscores"),
        ("[teams.'a/b']", "team is 'a/b': expected 1 to 100 printable characters without a slash"),
        ("[teams.a]\nrate = 0\n[victims.signs]", "rate is 0: expected a whole number from 1"),
        ("images = 0\n[victims.signs]", "images is 0: expected a whole number from 1"),
        ("", "there is no victim to serve: name one, as in --victim signs or [victims.signs]"),
        ("port = ", "cannot be read as TOML"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_a_line(command, tmp_path, text, words):
    (tmp_path / "serve.toml").write_text(text)
    status, printed, errors = command("serve", "--config", str(tmp_path / "serve.toml"))
    assert (status, printed) == (2, "")
    assert errors.startswith("extractlib: ") and errors.count("\n") == 1 and words in errors
    assert [path.name for path in tmp_path.iterdir()] == ["serve.toml"]  # and no database


@pytest.mark.parametrize(
    ("saved", "size", "served"), [((3, 64, 64), None, 64), ((3, 64, 64), 48, 48), (None, None, 32), (None, 48, 48)]
)
def test_a_victims_images_have_the_size_that_its_weights_name(tmp_path, saved, size, served):
    from extractlib import serve

    module = xl.models.networks.build("tiny", classes=2, seed=0)
    xl.Victim(module, classes=["jay", "wren"], image_shape=saved).save(tmp_path / "w.safetensors")
    said = {"weights": str(tmp_path / "w.safetensors"), "network": "tiny", "classes": ["jay", "wren"]}
    victims = {"mine": said if size is None else said | {"size": size}}
    settings = serve.Settings.of({"victims": victims, "database": str(tmp_path / "m.db")}, where="here")
    [api] = serve.apis_of(settings, Keys(settings.database)).values()
    assert api.image_shape == (3, served, served)
    api.close()


def test_a_detector_is_trained_on_the_tasks_and_the_pools_own_parts(monkeypatch):
    from extractlib import serve
    from extractlib.defenses import detectors

    class Trained:
        fingerprint = "trained"

    seen = []
    monkeypatch.setattr(
        detectors.BinaryDetector, "train", lambda benign, ood, trainer: seen.extend([benign, ood]) or Trained()
    )
    chosen = serve.VictimSettings(detector="atlas", policy="shuffle")
    got = serve._defense("signs", chosen, b"secret")
    assert [images.fingerprint for images in seen] == [
        xl.load("signs").detector.fingerprint,
        xl.load("atlas").detector.fingerprint,
    ]
    assert isinstance(got["detector"], Trained) and got["policy"].secret == b"secret"


def test_what_is_served_must_be_named(command):
    for words in ((), ("--victim", "signs", "--config", "serve.toml")):
        status, _, errors = command("serve", *words)
        assert (status, errors) == (2, "extractlib: name what to serve: either --victim signs or --config FILE.toml\n")


@pytest.mark.parametrize("words", [("--victim", "signs,birds"), ("--victim", "signs", "--victim", "birds")])
def test_a_line_names_one_victim(command, tmp_path, words):
    status, printed, errors = command("serve", *words, "--database", str(tmp_path / "meter.db"))
    assert (status, printed, list(tmp_path.iterdir())) == (2, "", [])
    assert re.fullmatch(
        r"extractlib: --victim is signs, ?birds: it names one victim; for several, give --config FILE.toml with a table"
        r" \[victims.NAME\] for each\n",
        errors,
    )


@pytest.mark.parametrize(("option", "value"), [("answers", "label"), ("budget", "5"), ("price", "0.1"), ("rate", "9")])
def test_what_the_file_says_is_not_said_again_on_the_line(command, tmp_path, option, value):
    place = tmp_path / "serve.toml"
    place.write_text("[victims.signs]")
    status, printed, errors = command("serve", "--config", str(place), f"--{option}", value)
    assert (status, printed) == (2, "")
    assert errors == (
        f"extractlib: --{option} is given along with --config: write it into {place}, and leave out --{option}\n"
    )
    assert not (tmp_path / "extractlib.db").exists()


def test_folders_in_a_file_lie_beside_it_or_at_home(tmp_path, monkeypatch):
    from extractlib import serve

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    place = tmp_path / "course" / "serve.toml"
    place.parent.mkdir()
    place.write_text("""
        database = "~/meter.db"
        [victims.pets]
        task = "folder:pets"
        detector = "folder:photos"
        [victims.own]
        task = "folder:~/pets"
        detector = "atlas"
        [victims.weights]
        weights = "~/own.safetensors"
    """)
    read = serve.Settings.read(place)
    assert read.database == str(tmp_path / "home/meter.db")
    pets, own, weights = (read.victims[name] for name in ("pets", "own", "weights"))
    assert (pets.task, pets.detector) == (f"folder:{place.parent / 'pets'}", f"folder:{place.parent / 'photos'}")
    assert (own.task, own.detector) == (f"folder:{tmp_path / 'home/pets'}", "atlas")
    assert weights.weights == str(tmp_path / "home/own.safetensors")


def test_without_the_extra_it_is_named(command, monkeypatch):
    monkeypatch.setattr("extractlib.cli_serve.find_spec", lambda name: None)
    status, _, errors = command("serve", "--victim", "signs")
    assert (status, errors) == (2, f"extractlib: fastapi is not installed: run {pip_install('serve')}\n")
    monkeypatch.delitem(sys.modules, "extractlib.api.client", raising=False)
    monkeypatch.setitem(sys.modules, "httpx", None)
    import extractlib.api.client as client  # which `from extractlib import *` imports too

    with pytest.raises(InputError, match=r"^httpx is not installed: run pip install 'extractlib\[serve\] @ .*'$"):
        client.connect("http://127.0.0.1:9", key="key", journal="journal.db")


# -- keys --------------------------------------------------------------------


def test_keys_are_added_listed_rotated_and_revoked(command, tmp_path):
    database = ("--database", str(tmp_path / "meter.db"))
    first = command("keys", "add", "red", *database)[1].strip()
    second = command("keys", "rotate", "red", *database)[1].strip()
    keys = Keys(tmp_path / "meter.db")
    assert [keys.team(first), keys.team(second)] == [None, "red"]
    rows = list(csv.DictReader(io.StringIO(command("keys", "list", *database)[1])))
    assert [(row["number"], row["team"], bool(row["revoked"])) for row in rows] == [
        (first.split("-")[1], "red", True),
        (second.split("-")[1], "red", False),
    ]
    assert command("keys", "revoke", "red", *database) == (0, "1 revoked\n", "")
    assert command("keys", "revoke", "red", *database)[::2] == (
        2,
        "extractlib: 'red' is not a team or number of a valid key: see extractlib keys list\n",
    )
    keys.close()


@pytest.mark.parametrize("words", [("list",), ("rotate", "red"), ("revoke", "red")])
def test_who_looks_for_keys_creates_no_database(command, tmp_path, words):
    place = tmp_path / "meter.db"
    status, printed, errors = command("keys", *words, "--database", str(place))
    assert (status, printed, list(tmp_path.iterdir())) == (2, "", [])
    assert errors == (
        f"extractlib: the database {place} does not exist: name the server's with --database or --config; extractlib"
        " keys add creates one\n"
    )


def test_a_table_of_teams_that_is_refused_creates_no_database(command, tmp_path):
    words = ("add", "--teams", str(tmp_path / "none.csv"), "--database", str(tmp_path / "meter.db"))
    assert command("keys", *words)[0] == 2 and not list(tmp_path.iterdir())


def test_a_team_that_cannot_be_creates_no_database(command, tmp_path):
    status, printed, errors = command("keys", "add", "a/b", "--database", str(tmp_path / "meter.db"))
    assert (status, printed, list(tmp_path.iterdir())) == (2, "", [])
    assert errors == "extractlib: team is 'a/b': expected 1 to 100 printable characters without a slash\n"


def test_a_rotation_that_fails_leaves_the_old_key_valid(tmp_path, monkeypatch):
    keys = Keys(tmp_path / "meter.db")
    first = keys.add("red")
    with monkeypatch.context() as changed, pytest.raises(KeyError):
        changed.setattr(api_keys, "_hash", lambda secret: {}[secret])
        keys.rotate("red")
    assert keys.team(first) == "red"
    second = keys.rotate("red")
    assert [keys.team(first), keys.team(second)] == [None, "red"]
    keys.close()


def test_keys_of_a_table_of_teams(command, tmp_path, monkeypatch):
    monkeypatch.setenv("EXTRACTLIB_DATABASE", str(tmp_path / "meter.db"))
    command("keys", "add", "red")
    (tmp_path / "teams.csv").write_text("\ufeffname,team\nAda,red\nGrace,Löwen und Co.\nAlan,blue\n", encoding="utf-8")
    printed = command("keys", "add", "--teams", str(tmp_path / "teams.csv"))[1]
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert [row["team"] for row in rows] == ["Löwen und Co.", "blue"]  # red has one
    keys = Keys(tmp_path / "meter.db")
    assert [keys.team(row["key"]) for row in rows] == ["Löwen und Co.", "blue"]
    keys.close()
    for words in (("add",), ("add", "a", "--teams", "teams.csv")):
        assert "name who gets a key: either a team or --teams FILE.csv" in command("keys", *words)[2]


@pytest.mark.parametrize(
    "content",
    [
        "team;mail\nMüller;m@x\nblue;b@x\n".encode("cp1252"),
        "team\tmail\nMüller\tm@x\nblue\tb@x\n".encode("utf-16"),
        "mail, team\nm@x, Müller\nb@x, blue\n".encode(),
    ],
    ids=["of an older spreadsheet", "with tabs", "with commas"],
)
def test_a_table_may_come_from_any_spreadsheet(tmp_path, content):
    with pytest.raises(InputError, match="none.csv is missing: name a CSV file with a team in each row"):
        teams_of(tmp_path / "none.csv")
    path = tmp_path / "teams.csv"
    path.write_bytes(content)
    assert teams_of(path) == ["Müller", "blue"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"name\nAda\n", "has no column 'team', or no rows: name a CSV file with a team in each row"),
        (b"team,name\na,Ada\n,Bo\n", "is cut short in line 3: name a CSV file with a team in each row"),
        (b"team\na\na\n", "names team 'a' twice: name it once"),
        (b"team\na/b\n", "team is 'a/b'"),
        (b"\xff\xfeteam\n", "is not text in utf-16-le, although its first bytes say so: save it as UTF-8"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path, content, words):
    path = tmp_path / "teams.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        list(teams_of(path))


def test_terms_of_a_team_are_the_victims_where_it_says_nothing():
    from extractlib import serve
    from extractlib.api.meter import Meter

    settings = serve.Settings.of(
        {
            "victims": {"signs": {"budget": 5, "price": 2.0}},
            "teams": {"a": {"budget": 9}, "b": {"price": 1.0}, "c": {}},
        },
        where="a test",
    )
    api = serve._api("signs", linear_victim(), settings, Keys(), Meter())
    assert [api._terms_of(f"signs/{team}") for team in "abcd"] == [
        Terms(budget=9, price=2.0),
        Terms(budget=5, price=1.0),
        Terms(budget=5, price=2.0),
        Terms(budget=5, price=2.0),
    ]
    api.close()
