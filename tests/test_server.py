"""A victim on the network: the same answers and charges as in process, whoever is killed and whatever is sent."""

import base64
import gc
import io
import json
import logging
import math
import socket
import sqlite3
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import sqlalchemy as sql
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from killing import content
from linear_victim import SIDE, linear_victim, noise, remote
from PIL import Image
from postgres import charges
from serving import client_process, exit_code, free_port, pool_of, server_process, until_healthy
from torch import nn

import extractlib as xl
from extractlib.api import wire
from extractlib.api.batching import ServedAPI
from extractlib.api.client import Journal, RemoteAPI, Unanswered
from extractlib.api.keys import Keys
from extractlib.api.meter import BudgetExceeded, Meter, Request, RequestReused, Terms
from extractlib.api.server import Limits, Problem, Rates, make_app, running
from extractlib.api.service import PredictionAPI
from extractlib.attacks import AdaptiveKnockoff, Knockoff
from extractlib.data.pixels import read_image
from extractlib.defenses.policies import Deny, Shuffle
from extractlib.errors import InputError

GRANULARITIES = ["full", "top-3", "rounded-2", "label", "temperature-2.0"]


class Served:
    """A server in a thread, its keys, and how a team talks to it."""

    def __init__(self, url, keys, folder):
        self.url, self.keys, self._folder, self._keys, self._opened = url, keys, folder, {}, []
        self._http, self.answered = httpx.Client(timeout=60), set()

    def key(self, team: str = "red") -> str:
        if team not in self._keys:
            self._keys[team] = self.keys.add(team)
        return self._keys[team]

    def connect(self, team: str = "red", **options) -> RemoteAPI:
        api = xl.connect(self.url, key=self.key(team), journal=self._folder / f"{team}.db", **options)
        self._opened.append(api)
        return api

    def send(self, method: str, path: str, *, team: str | None = "red", **options) -> httpx.Response:
        headers = dict(options.pop("headers", {}))
        if team is not None:
            headers["Authorization"] = f"Bearer {self.key(team)}"
        return self._http.request(method, self.url + path, headers=headers, **options)

    def post(self, body: bytes, kind: str = wire.NPY, *, team: str = "red", **headers: str | bytes) -> httpx.Response:
        headers = {"Content-Type": kind} | {name.replace("_", "-"): value for name, value in headers.items()}
        return self.send("POST", "/query", team=team, content=body, headers=headers)

    def charged(self, team: str = "red") -> int:
        return self.send("GET", "/usage", team=team).json()["queries"]

    def close(self) -> None:
        for opened in (self._http, *self._opened):
            opened.close()


@pytest.fixture
def serve(tmp_path):
    """Return what starts a server of the linear victim."""

    @contextmanager
    def start(victim=None, *, limits=None, place=None, **options):
        keys = Keys(place)
        api = ServedAPI(victim or linear_victim(), meter=Meter(place), **options)
        with running(make_app({"linear": api}, keys, limits)) as url:
            served = Served(url, keys, tmp_path)
            yield served
            served.close()

    return start


def npy(count: int, *, seed: int = 1) -> bytes:
    return wire.to_npy(noise(count, seed=seed).numpy())


def encoded(kind: str, *, width: int = 9, height: int = 7, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def same(one, other) -> bool:
    parts = zip(vars(one).values(), vars(other).values(), strict=True)
    return all((a is None and b is None) or torch.equal(a, b) for a, b in parts)


# -- as in process -----------------------------------------------------------


@pytest.mark.parametrize(
    ("granularity", "attack"),
    [(granularity, Knockoff(budget=50, batch=16)) for granularity in GRANULARITIES]
    + [("full", AdaptiveKnockoff(budget=50, batch=16, reward=reward)) for reward in ("certainty", "all")],
)
def test_an_attack_over_the_network_is_the_attack_in_process(serve, granularity, attack):
    """The same answers bit for bit, hence the same surrogate."""
    pool = pool_of(60)

    def copy() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 10))

    near = PredictionAPI(linear_victim(), answers=granularity, budget=50)
    expected = attack(near, pool, surrogate=copy(), progress=False)
    with serve(answers=granularity, budget=50) as served:
        far = served.connect()
        assert (far.classes, far.granularity) == (near.classes, near.granularity)
        got = attack(far, pool, surrogate=copy(), progress=False)
        assert far.usage() == near.usage("attacker")
        with pytest.raises(BudgetExceeded, match="asks 1 queries and 0 of 50 are left: ask at most 0"):
            far.query(noise(1))
    for name, weights in expected.model.state_dict().items():
        assert torch.equal(got.model.state_dict()[name], weights), name


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_answers_arrive_bit_for_bit_and_can_be_fetched_again(serve, granularity):
    near = PredictionAPI(linear_victim(), answers=granularity)
    with serve(answers=granularity) as served:
        far = served.connect()
        sent = {f"request {number}".replace(" ", "-"): noise(3, seed=number) for number in range(23)}
        for request, images in sent.items():
            assert same(far.query(images, request=request), near.query(images))
        again = dict(far.answers())  # in two parts
        assert list(again) == sorted(sent)
        assert all(same(again[request], near.query(images)) for request, images in sent.items())
        assert far.usage().queries == 69
        assert dict(served.connect("blue").answers()) == {}


def test_denied_answers_arrive_as_denied(serve):
    class Everything:
        fingerprint = "everything"

        def detect(self, images):
            return torch.arange(len(images)) % 2 == 0

    with serve(detector=Everything(), policy=Deny()) as served:
        far = served.connect()
        assert far.query(noise(4), request="a").denied.tolist() == [True, False, True, False]
        assert dict(far.answers())["a"].denied.tolist() == [True, False, True, False]
        assert served.post(npy(2)).json()["labels"][0] is None
        assert far.usage().queries == 6


def test_several_clients_get_their_own_answers_from_common_batches(serve):
    victim, alone = linear_victim(), PredictionAPI(linear_victim())
    gate, calls, logits = threading.Event(), victim.calls, victim.logits

    def waiting(images):
        gate.wait(60)
        return logits(images)

    object.__setattr__(victim, "logits", waiting)
    with serve(victim, batch_size=20) as served:
        got, apis = {}, [served.connect(f"team {number}") for number in range(12)]

        def ask(number: int) -> None:
            got[number] = apis[number].query(noise(number + 1, seed=number))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        time.sleep(2)
        gate.set()
        for thread in threads:
            thread.join()
    assert sum(calls) == 78 and len(calls) < 12 and max(calls) <= 20
    for number in range(12):
        expected = alone.query(noise(number + 1, seed=number))
        assert torch.equal(got[number].labels, expected.labels)
        torch.testing.assert_close(got[number].probabilities, expected.probabilities, rtol=0, atol=1e-5)


def test_what_fails_in_a_batch_fails_alone():
    class Picky:
        classes, fingerprint, image_shape = ("a", "b"), "picky", (1, 1, 1)

        def logits(self, images):
            if (images == 13).any():
                raise InputError("thirteen")
            return images.float().flatten(1).expand(-1, 2)

    api = ServedAPI(Picky(), meter=Meter())
    outcomes = {}

    def ask(value: int) -> None:
        try:
            outcomes[value] = api.query(torch.full((1, 1, 1, 1), value, dtype=torch.uint8)).labels.tolist()
        except InputError as error:
            outcomes[value] = str(error)

    threads = [threading.Thread(target=ask, args=(value,)) for value in range(8, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.pop(13) == "thirteen" and all(answer == [0] for answer in outcomes.values())
    assert api.usage("anonymous").queries == 11
    api.close()
    closed = torch.zeros(1, 1, 1, 1, dtype=torch.uint8)
    with pytest.raises(InputError, match="^the API is closed: try again when it is served again$"):
        api.query(closed)


def test_64_clients_never_overspend_and_are_never_refused_early(serve, tmp_path):
    with serve(budget=640, place=tmp_path / "meter.db") as served:
        far = served.connect()
        answered, refused, start = [], [], threading.Barrier(64, timeout=60)

        def ask(number: int) -> None:
            start.wait()
            for turn in range(6):
                try:
                    answered.append(len(far.query(noise(2, seed=number), request=f"{number}-{turn}")))
                except BudgetExceeded as error:
                    refused.append(str(error))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (sum(answered), len(refused)) == (640, 64)
        assert all("asks 2 queries and 0 of 640 are left" in line for line in refused)
    assert charges(tmp_path / "meter.db") == (320, 640)


def test_threads_read_arrays_at_once():
    """In Python 3.11 a parser that a garbage collection interrupts fails if another thread parses meanwhile."""
    before, often = gc.get_threshold(), sys.getswitchinterval()
    body = npy(1)

    def collected(phase: str, info: dict[str, int]) -> None:
        sum(range(50))  # long enough for another thread's turn

    def read(_: int) -> np.ndarray:
        return [wire.from_npy(body) for _ in range(50)][-1]

    gc.callbacks.append(collected)
    try:
        gc.set_threshold(1, 10**6)  # the youngest objects only, which is fast
        sys.setswitchinterval(1e-6)
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(read, range(8)))
    finally:
        gc.set_threshold(*before)
        sys.setswitchinterval(often)
        gc.callbacks.remove(collected)
    assert all(np.array_equal(one, noise(1, seed=1).numpy()) for one in found)


def test_a_parser_that_fails_is_asked_again(monkeypatch):
    """A traceback that is written to a log meanwhile parses too, and does not know of the lock."""
    version, failures = (1, 0), iter(range(99))
    read = wire.HEADERS[version]

    def sometimes(file):
        found = read(file)
        if next(failures) % 4 != 3:
            raise SystemError("AST constructor recursion depth mismatch")
        return found

    monkeypatch.setitem(wire.HEADERS, version, sometimes)
    assert np.array_equal(wire.from_npy(npy(1)), noise(1, seed=1).numpy())
    monkeypatch.setattr(wire, "ATTEMPTS", 3)
    with pytest.raises(InputError, match="not a complete npy file"):
        wire.from_npy(npy(1))


def test_a_body_in_json_with_too_many_values_is_refused_before_it_is_read(monkeypatch):
    monkeypatch.setattr("json.loads", lambda data: pytest.fail("it was read"))
    with pytest.raises(wire.TooLarge, match="the request has 1,001 values: send at most 64 images at a time"):
        wire.files_from_json(b'{"images":[' + b"{}," * 1_000 + b"{}]}", most=64)


def test_who_reads_does_not_wait_for_who_writes(tmp_path, monkeypatch):
    """Neither a key that is looked up, nor what was used, nor an answer that is known."""
    monkeypatch.setattr("extractlib.database.WAIT", 0.2)
    place = tmp_path / "meter.db"
    keys, meter, writer = Keys(place), Meter(place), Meter(place)
    keys.add("red")
    known = Request(client="red", id="1", digest=b"d", queries=2)
    meter.charge(known, b"answer", Terms())
    with writer._database.transaction() as connection:
        connection.exec_driver_sql("UPDATE accounts SET queries = 7")
        assert keys.teams() == ["red"]
        assert meter.usage("red", Terms()).queries == 2
        assert meter.check(known, Terms()) == b"answer"
        assert meter.answers("red") == [("1", b"answer")]
        with pytest.raises(InputError, match="another process is using it"):
            keys.add("blue")


def test_nothing_waits_for_queries_that_wait_for_the_model(serve):
    go = threading.Event()

    class Slow:
        classes, image_shape, fingerprint = [*"abcdefghij"], (3, SIDE, SIDE), "slow"

        def logits(self, images):
            go.wait(30)
            return torch.zeros(len(images), 10)

    with serve(Slow(), limits=Limits(bodies=64)) as served, ThreadPoolExecutor(60) as threads:
        served.key()
        waiting = [
            threads.submit(
                lambda: (
                    httpx.post(
                        f"{served.url}/query",
                        content=npy(1),
                        timeout=60,
                        headers={"Authorization": f"Bearer {served.key()}", "Content-Type": wire.NPY},
                    ).status_code
                )
            )
            for _ in range(60)
        ]
        time.sleep(1.0)
        assert served.send("GET", "/healthz").status_code == 200
        assert served.charged() == 0
        assert not any(one.done() for one in waiting)
        go.set()
        assert {one.result() for one in waiting} == {200}


def test_a_module_that_ends_its_thread_ends_one_query(serve):
    class Ends:
        classes, image_shape, fingerprint = [*"abcdefghij"], (3, SIDE, SIDE), "ends"

        def logits(self, images):
            if images.max() == 0:
                raise SystemExit(3)
            return torch.zeros(len(images), 10)

    with serve(Ends()) as served:
        black = wire.to_npy(np.zeros((1, 3, SIDE, SIDE), np.uint8))
        assert served.post(black).status_code == 500
        assert served.send("GET", "/healthz").status_code == 200
        assert served.post(npy(1)).status_code == 200
        assert served.charged() == 1


# -- keys and teams ----------------------------------------------------------


def test_keys_are_random_and_stored_without_their_secrets(tmp_path):
    place = tmp_path / "meter.db"
    keys = Keys(place)
    made = [keys.add("red") for _ in range(3)] + [keys.add("blue")]
    assert len(set(made)) == 4 and all(len(key) == 59 for key in made)
    assert [keys.team(key) for key in made] == ["red"] * 3 + ["blue"]
    assert [key.team for key in keys.all()] == ["red"] * 3 + ["blue"]
    keys.close()
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    for key in made:
        _, number, secret = key.split("-", 2)
        assert number.encode() in stored and secret.encode() not in stored
        assert len(base64.urlsafe_b64decode(secret + "=")) == 32  # 256 bits


def test_what_is_no_key_is_nobodys():
    keys = Keys()
    key = keys.add("red")
    number, other = key.split("-")[1], keys.add("blue").split("-", 2)[2]
    for wrong in ("", "xl-", key[:-1], key + "x", f"xl-{number}-", f"xl-{number}-{other}", key.upper(), "\udcff"):
        assert keys.team(wrong) is None, wrong


def test_keys_are_compared_in_constant_time(monkeypatch):
    """Also those whose number is unknown."""
    keys = Keys()
    key, compared = keys.add("red"), []
    monkeypatch.setattr("hmac.compare_digest", lambda a, b: compared.append((len(a), len(b))) or a == b)
    assert [keys.team(key), keys.team("xl-000000000000-x")] == ["red", None]
    assert compared == [(32, 32)] * 2


def test_revoked_keys_are_refused_and_a_rotated_team_keeps_its_account(serve, tmp_path, monkeypatch):
    monkeypatch.setattr("extractlib.api.keys.FRESH", 3600)
    place = tmp_path / "meter.db"
    with serve(place=place, budget=10) as served:
        served.connect().query(noise(4), request="a")
        host = Keys(place)
        new = host.rotate("red")
        assert served.send("GET", "/usage").json()["queries"] == 4  # known for a while
        served.keys._read_at = float("-inf")
        assert served.send("GET", "/usage").status_code == 401
        again = xl.connect(served.url, key=new, journal=tmp_path / "again.db")
        assert again.usage().remaining == 6 and [name for name, _ in again.answers()] == ["a"]
        again.close()
        assert host.revoke(new.split("-")[1]) == 1
        for name in ("red", "nobody", new):
            with pytest.raises(InputError, match=r"is not a team or number of a valid key: see extractlib keys list$"):
                host.revoke(name)
        with pytest.raises(InputError, match="^team 'red' has no valid key: see extractlib keys list$"):
            host.rotate("red")
        host.close()


def test_more_images_than_the_server_takes_are_several_requests(serve):
    near = PredictionAPI(linear_victim(), answers="top-2")
    with serve(answers="top-2", budget=10, limits=Limits(images=4)) as served, served.connect() as far:
        assert far.image_shape == (3, SIDE, SIDE)
        assert same(far.query(noise(9)), near.query(noise(9)))
        assert far.usage().queries == 9 and len(list(far.answers())) == 3


def test_more_bytes_than_the_server_takes_are_several_requests(serve):
    """Five images of 192 KiB fit in a MiB along with a header."""

    class Large:
        classes, fingerprint, image_shape = ("a", "b"), "large", (3, 256, 256)

        def logits(self, images):
            return images[:, 0, 0, :2].float()

    images = torch.randint(256, (12, 3, 256, 256), generator=torch.manual_seed(0)).to(torch.uint8)
    with serve(Large(), limits=Limits(megabytes=1)) as served, served.connect() as far:
        assert same(far.query(images), PredictionAPI(Large()).query(images)) and served.charged() == 12
        with pytest.raises(InputError, match=r"^6 images: http.* takes at most 5 at a time: set batch=…$"):
            far.query(images[:6], request="six")
        assert len(far.query(images[:5], request="five")) == 5


def test_what_was_answered_before_a_refusal_is_free_when_it_is_asked_again(serve):
    """Of three requests, the last is above the budget."""
    with serve(budget=10, limits=Limits(images=4)) as served, served.connect() as far:
        for _ in range(2):
            with pytest.raises(BudgetExceeded, match="asks 3 queries and 2 of 10 are left"):
                far.query(noise(11))
            assert far.usage().queries == 8
        assert len(far.query(noise(11)[:8])) == 8 and far.usage().queries == 8


def test_a_team_reads_and_pays_for_its_own_requests_only(serve):
    """Two teams use one id for different images."""
    with serve(budget=5) as served:
        one, other = served.connect("red"), served.connect("blue")
        first, second = one.query(noise(2, seed=1), request="same"), other.query(noise(3, seed=2), request="same")
        assert [len(given) for _, given in one.answers()] == [2] and [len(given) for _, given in other.answers()] == [3]
        assert same(one.query(noise(2, seed=1), request="same"), first)
        assert same(other.query(noise(3, seed=2), request="same"), second)
        assert (one.usage().queries, other.usage().queries) == (2, 3)
        with pytest.raises(RequestReused, match="was made with other images or to another API: use a new id$"):
            one.query(noise(3, seed=2), request="same")


def test_teams_have_terms_of_their_own(serve):
    with serve(budget=5, price=1.0, terms={"linear/blue": Terms(budget=2, price=0.5)}) as served:
        for team, budget, cost in (("red", 5, 5.0), ("blue", 2, 1.0)):
            far = served.connect(team)
            far.query(noise(budget))
            assert (far.usage().budget, far.usage().cost) == (budget, cost)
            with pytest.raises(BudgetExceeded):
                far.query(noise(1))


def test_several_victims_are_served_each_under_its_name(tmp_path):
    place = tmp_path / "meter.db"
    keys, meter = Keys(place), Meter(place)
    victims = {"one": linear_victim(3), "two": linear_victim(4)}
    apis = {name: ServedAPI(victim, meter=meter, budget=5) for name, victim in victims.items()}
    with running(make_app(apis, keys)) as url:
        key = keys.add("red")
        for name, victim in victims.items():
            far = xl.connect(f"{url}/{name}/", key=key, journal=tmp_path / f"{name}.db")
            assert same(far.query(noise(5), request="a"), PredictionAPI(victim).query(noise(5)))
            assert far.usage().remaining == 0 and len(list(far.answers())) == 1
            far.close()
        with pytest.raises(InputError, match="Not Found"):
            xl.connect(url, key=key, journal=tmp_path / "none.db")


def test_a_name_stands_for_one_victim_and_what_is_shown_of_it_says_nothing(tmp_path):
    place = tmp_path / "meter.db"
    keys = Keys(place)
    shown = keys.claim("signs", "a")
    assert shown == Keys(place).claim("signs", "a") != keys.claim("birds", "a") and shown != Keys().claim("signs", "a")
    with pytest.raises(InputError, match="holds answers of another victim, granularity or policy under the name 'sig"):
        keys.claim("signs", "b")
    assert keys.secret("signs") == Keys(place).secret("signs") and len(keys.secret("signs")) == 32


def test_a_victim_must_say_which_images_it_takes():
    victim = linear_victim()
    object.__setattr__(victim, "image_shape", None)
    with pytest.raises(InputError, match="^the victim has no image_shape"):
        ServedAPI(victim)


# -- requests ----------------------------------------------------------------


def test_a_retry_is_free_and_an_id_is_used_once(serve):
    with serve(budget=3) as served:
        first = served.post(npy(3), Idempotency_Key="a")
        assert first.status_code == 200 and first.headers["Idempotency-Key"] == "a"
        again = served.post(npy(3), Idempotency_Key="a")
        assert again.json() == first.json() and served.charged() == 3
        reused = served.post(npy(3, seed=2), Idempotency_Key="a")
        assert (reused.status_code, reused.json()["type"]) == (422, "/problems#reused")
        spent = served.post(npy(1), Idempotency_Key="b")
        assert (spent.status_code, spent.json()["type"]) == (429, "/problems#budget")
        assert "Retry-After" not in spent.headers and "0 of 3 are left: ask at most 0" in spent.json()["detail"]
        assert served.charged() == 3


@pytest.mark.parametrize(("kind", "mime"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp")])
def test_encoded_images_are_what_the_victim_would_make_of_them(serve, kind, mime):
    files = [encoded(kind, width=9 + number, height=30, seed=number) for number in range(3)]
    images = torch.stack([torch.tensor(read_image(io.BytesIO(file), size=SIDE)) for file in files])
    near = PredictionAPI(linear_victim(), answers="top-2")
    expected = wire.answers_to_json(near.query(images))
    with serve(answers="top-2") as served:
        parts = [("images", (f"{number}", file, mime)) for number, file in enumerate(files)]
        in_base64 = {"images": [base64.b64encode(file).decode() for file in files]}
        for sent in ({"files": parts}, {"json": in_base64}):
            got = served.send("POST", "/query", **sent)
            assert got.status_code == 200 and {**got.json(), "request": None} == {"request": None, **expected}
        assert served.post(files[0], mime).json()["labels"] == expected["labels"][:1]
        assert served.charged() == 7


def test_answers_in_json_are_exact_and_short(serve):
    with serve(answers="rounded-2") as served:
        said = served.post(npy(5)).json()["probabilities"]
        assert all(number == round(number, 2) for row in said for number in row)
    with serve() as served:
        said = torch.tensor(served.post(npy(5)).json()["probabilities"])
        assert torch.equal(said, PredictionAPI(linear_victim()).query(noise(5)).probabilities)


def bomb(width: int, height: int) -> bytes:
    """Return a PNG of one color, a few kilobytes for any size."""
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return file.getvalue()


def as_json(*images: bytes) -> bytes:
    return json.dumps({"images": [base64.b64encode(image).decode() for image in images]}).encode()


def header(text: str, data: bytes = b"") -> bytes:
    """Return an npy file with any header."""
    line = text.encode("latin-1").ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line + data


PICKLED = io.BytesIO()
np.save(PICKLED, np.array([{"a": 1}, print], dtype=object), allow_pickle=True)
FITS = f"(1, 3, {SIDE}, {SIDE})"

REFUSED = [
    ("no body", wire.NPY, b"", 422, "not a complete npy file"),
    ("no npy", wire.NPY, b"abc" * 100, 422, "not a complete npy file"),
    ("pickle", wire.NPY, PICKLED.getvalue(), 422, "not a complete npy file of numbers"),
    ("cut short", wire.NPY, npy(3)[:-1], 422, "not a complete npy file"),
    ("a byte more", wire.NPY, npy(3) + b"x", 422, "not a complete npy file"),
    ("version 3", wire.NPY, npy(1).replace(b"NUMPY\x01", b"NUMPY\x03"), 422, "not a complete npy file"),
    ("huge", wire.NPY, header(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({10**15}, 3, 4, 4)}}"), 422, "npy"),
    ("negative", wire.NPY, header("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, -1)}", b"a"), 422, "npy"),
    (
        "empty and huge",
        wire.NPY,
        header(f"{{'descr': '|u1', 'fortran_order': False, 'shape': (0, {10**30})}}"),
        422,
        "npy",
    ),
    ("nested", wire.NPY, header("(" * 100), 422, "npy"),
    ("code", wire.NPY, header("__import__('os').getpid()"), 422, "npy"),
    ("subarray", wire.NPY, header("{'descr': ('<u1', (2, 2)), 'fortran_order': False, 'shape': ()}", b"abcd"), 422, ""),
    ("floats", wire.NPY, wire.to_npy(noise(1).float().numpy()), 422, "type <f4: expected uint8"),
    ("none", wire.NPY, npy(1)[:-48].replace(b"(1,", b"(0,"), 422, "n at least 1"),
    ("other size", wire.NPY, wire.to_npy(np.zeros((1, 3, 5, 4), np.uint8)), 422, f"shape (n, 3, {SIDE}, {SIDE})"),
    ("a scalar", wire.NPY, wire.to_npy(np.uint8(3)), 422, "expected uint8"),
    ("too many", wire.NPY, npy(9), 413, "the request has 9 images: send at most 8 at a time"),
    ("too long", wire.NPY, b"x" * (2**20 + 1), 413, "the body has 1,048,577 bytes: send at most 1,048,576"),
    ("no type", "", npy(1), 415, "the body's type is ''"),
    ("other type", "text/html", npy(1), 415, "the body's type is 'text/html': send application/x-npy"),
    ("gif", "image/gif", encoded("GIF"), 415, "'image/gif'"),
    ("gif as png", "image/png", encoded("GIF"), 422, "image 0 is not a PNG, JPEG or WebP: send a complete"),
    ("cut image", "image/png", encoded("PNG")[:-30], 422, "image 0 cannot be read as an image"),
    ("large image", "image/png", bomb(2**12 + 1, 2**12), 413, "the largest image has 16,781,312 pixels"),
    ("image bomb", "image/png", bomb(2**16, 2**14), 413, "has too many pixels"),
    ("sum of images", wire.JSON, as_json(*[bomb(2**12, 2**11 + 2**10)] * 8), 200, ""),
    ("no json", wire.JSON, b"{", 422, "the body is not {"),
    ("other json", wire.JSON, b'{"image": []}', 422, "the body is not {"),
    ("a list", wire.JSON, b"[]", 422, "the body is not {"),
    ("a number", wire.JSON, b'{"images": [1]}', 422, "the body is not {"),
    ("text", wire.JSON, b'{"images": "abcd"}', 422, "the body is not {"),
    ("no base64", wire.JSON, b'{"images": ["\xc3\xa4"]}', 422, "the body is not {"),
    ("no utf-8", wire.JSON, b'{"images": ["\xff"]}', 422, "the body is not {"),
    ("deep json", wire.JSON, b'{"images":' + b"[" * 100_000, 422, "the body is not {"),
    ("long number", wire.JSON, b'{"images": ' + b"1" * 10_000 + b"}", 422, "the body is not {"),
    ("no image", wire.JSON, as_json(b"abc"), 422, "image 0 is not a PNG"),
    ("no images", wire.JSON, as_json(), 422, "n at least 1"),
    ("many images", wire.JSON, as_json(*[b"abc"] * 9), 413, "the request has 9 images"),
    ("no boundary", "multipart/form-data", b"abc", 422, "not a multipart of files called images (Missing boundary"),
    ("no multipart", "multipart/form-data; boundary=a", b"abc", 422, "not a multipart of files called images"),
    (
        "field",
        "multipart/form-data; boundary=a",
        b'--a\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n--a--',
        422,
        "no",
    ),
]


@contextmanager
def narrow(folder, *, seconds: int):
    """Serve with narrow limits."""
    keys, limits = Keys(), Limits(images=8, megabytes=1, seconds=seconds)
    with running(make_app({"linear": ServedAPI(linear_victim(), meter=Meter(), budget=10**6)}, keys, limits)) as url:
        served = Served(url, keys, folder)
        yield served
        served.close()


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    with narrow(tmp_path_factory.mktemp("strict"), seconds=30) as served:
        yield served


@pytest.fixture
def hasty(tmp_path):
    """A server that waits a second for a body."""
    with narrow(tmp_path, seconds=1) as served:
        yield served


@pytest.mark.parametrize(
    ("kind", "body", "status", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_what_cannot_be_used_is_refused_in_words_and_not_charged(strict, kind, body, status, words):
    before = strict.charged()
    got = strict.post(body, kind, Idempotency_Key="refused")
    assert got.status_code == status
    if status != 200:
        said = got.json()
        assert got.headers["Content-Type"] == wire.PROBLEM
        assert set(said) == {"type", "title", "status", "detail"} and said["status"] == status
        assert words in said["detail"] and "\n" not in said["detail"]
        assert said["type"].removeprefix("/problems#") in strict.send("GET", "/problems").json()
        assert strict.charged() == before
        # The id is not used up, and nobody is locked out.
        assert strict.post(npy(1), Idempotency_Key=f"fine-{before}").status_code == 200


def test_all_pixels_of_a_request_are_limited():
    files = [bomb(2**12, 2**12)] * 17
    with pytest.raises(wire.TooLarge, match="all together 285,212,672: at most 16,777,216 and 268,435,456 can be sent"):
        wire.images_from_files(files, (3, SIDE, SIDE))
    with pytest.raises(InputError, match=r"takes images of shape \(1, 8, 8\), not any picture: send one npy"):
        wire.images_from_files(files, (1, 8, 8))


def test_other_paths_methods_and_parameters_are_refused(strict):
    for method, path, status in [
        ("GET", "/nothing", 404),
        ("GET", "/query", 405),
        ("DELETE", "/usage", 405),
        ("GET", "/answers?limit=0", 422),
        ("GET", "/answers?limit=101", 422),
        ("GET", "/answers?limit=x", 422),
        ("GET", "/answers?after=%00", 422),
        ("GET", "/answers?after=a%20b", 422),
        ("GET", "/answers?after=" + "a" * 256, 422),
    ]:
        got = strict.send(method, path)
        assert (got.status_code, got.headers["Content-Type"]) == (status, wire.PROBLEM), path
        assert got.json()["status"] == status
    for wrong in ("a b", "a" * 256, "ä".encode(), ""):
        got = strict.post(npy(1), Idempotency_Key=wrong)
        assert got.status_code == 422 and "the Idempotency-Key is not 1 to 255 visible ASCII" in got.json()["detail"]


def test_who_has_no_key_is_refused_before_the_body_is_read(strict):
    for headers in (
        {},
        {"Authorization": "Bearer xl-a-b"},
        {"Authorization": "Basic abc"},
        {"Authorization": "Bearer"},
    ):
        for method, path in (("POST", "/query"), ("GET", "/usage"), ("GET", "/answers"), ("GET", "/victim")):
            got = strict.send(method, path, team=None, headers=headers)
            assert (got.status_code, got.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert got.json()["type"] == "/problems#key"


def raw(strict: Served, head: str, *, then: bytes = b"", wait: float = 0.0, close: bool = False) -> bytes:
    """Send bytes as they are, and return what comes back."""
    host, port = strict.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head.replace("KEY", strict.key()).replace("\n", "\r\n").encode() + then)
        time.sleep(wait)
        if close:
            connection.shutdown(socket.SHUT_WR)
        got = b""
        while part := connection.recv(65_536):
            got += part
        return got


HEAD = f"POST /query HTTP/1.1\nHost: a\nAuthorization: Bearer KEY\nContent-Type: {wire.NPY}\nConnection: close\n"


def test_slow_cut_and_broken_bodies_are_refused(hasty):
    before = hasty.charged()
    slow = raw(hasty, f"{HEAD}Content-Length: 1000\n\n", then=b"abc")
    assert slow.startswith(b"HTTP/1.1 408") and b"the body took more than 1 seconds: send less at a time" in slow
    assert raw(hasty, f"{HEAD}Content-Length: 1000\n\n", then=b"abc", close=True)[:12] in (
        b"",
        b"HTTP/1.1 400",
        b"HTTP/1.1 408",
    )
    assert raw(hasty, f"{HEAD}Content-Length: 3\n\n", then=npy(1)).startswith(b"HTTP/1.1 422")
    assert raw(hasty, f"{HEAD}Transfer-Encoding: chunked\n\n", then=b"zz\r\n")[:12] in (
        b"HTTP/1.1 400",
        b"HTTP/1.1 408",
    )
    assert raw(hasty, "POST /query HTTP/9\n\n").startswith(b"HTTP/1.1 400")
    assert raw(hasty, f"{HEAD}Content-Length: -1\n\n").startswith(b"HTTP/1.1 400")
    assert hasty.charged() == before


def test_a_body_without_end_is_thrown_away(strict):
    """Thirty times what is allowed, in parts and without its length; refused when it has all come."""
    before = strict.charged()
    parts = (b"x" * 2**16 for _ in range(480))
    got = strict.send("POST", "/query", content=parts, headers={"Content-Type": wire.NPY})
    assert (got.status_code, got.json()["type"]) in ((413, "/problems#too-large"), (408, "/problems#slow"))
    assert strict.charged() == before


VALID = {
    wire.NPY: npy(2),
    wire.JSON: as_json(encoded("PNG")),
    "image/png": encoded("PNG"),
    "image/jpeg": encoded("JPEG"),
    "image/webp": encoded("WEBP"),
    "multipart/form-data; boundary=a": b'--a\r\nContent-Disposition: form-data; name="images"; filename="x"\r\n\r\n'
    + encoded("PNG")
    + b"\r\n--a--\r\n",
}


@st.composite
def bodies(draw) -> bytes:
    """Return bytes of any kind, most of them nearly a body that could be used."""
    body = bytearray(draw(st.sampled_from([*VALID.values(), b""])))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(body)))
        change = draw(st.sampled_from(["flip", "cut", "insert", "repeat"]))
        if change == "flip" and place < len(body):
            body[place] ^= 1 << draw(st.integers(0, 7))
        elif change == "cut":
            del body[place : place + draw(st.integers(1, 200))]
        elif change == "insert":
            body[place:place] = draw(st.binary(max_size=40))
        else:
            body[place:place] = body[max(0, place - 20) : place]
    return bytes(body)


HEADER = st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_categories=["Cc"]), max_size=300)


def attack_with_nonsense(strict: Served, kind: str, body: bytes, path: str, headers: dict) -> None:
    before = strict.charged()
    got = strict.send("POST", path, content=body, headers={"Content-Type": kind.encode("latin-1"), **headers})
    assert got.status_code < 500, got.text
    new = got.status_code == 200 and got.json()["request"] not in strict.answered
    assert strict.charged() == before + (len(got.json()["labels"]) if new else 0)
    if new:
        strict.answered.add(got.json()["request"])
    assert got.status_code == 200 or got.headers["Content-Type"] == wire.PROBLEM


nonsense = given(
    kind=st.one_of(st.sampled_from([*VALID]), HEADER),
    body=bodies(),
    path=st.sampled_from(["/query", "/query", "/query", "/query?a=b", "/usage", "/quer%00y"]),
    headers=st.dictionaries(
        st.sampled_from(["Accept", "Idempotency-Key", "Content-Encoding", "Expect", "X-A"]),
        HEADER.map(lambda text: text.encode("latin-1")),
        max_size=2,
    ),
)
relaxed = {"suppress_health_check": [*HealthCheck]}


@settings(max_examples=250, **relaxed)
@nonsense
def test_nonsense_is_refused_and_not_charged(strict, kind, body, path, headers):
    attack_with_nonsense(strict, kind, body, path, headers)


@pytest.mark.slow
@settings(max_examples=10_000, **relaxed)
@nonsense
def test_ten_thousand_times_nonsense(strict, kind, body, path, headers):
    attack_with_nonsense(strict, kind, body, path, headers)


def peak(process: int) -> int:
    """Return the most memory that a process has had, in 2^20 bytes."""
    [line] = [line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) // 2**10


@pytest.mark.slow
def test_large_bodies_and_bombs_leave_the_memory_flat(tmp_path):
    keys, port = Keys(tmp_path / "meter.db"), free_port()
    url, headers = f"http://127.0.0.1:{port}/query", {"Authorization": f"Bearer {keys.add('red')}"}
    with server_process(tmp_path / "meter.db", port, budget=10) as process, httpx.Client(timeout=300) as http:
        until_healthy(f"http://127.0.0.1:{port}")

        def send_all() -> None:
            for kind, content in [
                (wire.NPY, (b"x" * 2**20 for _ in range(100))),
                (wire.NPY, npy(1) + b"x" * 2**24),
                (wire.JSON, b'{"images": ["' + b"A" * 2**24 + b'"]}'),
                ("image/png", bomb(2**16, 2**14)),
                (wire.JSON, as_json(*[bomb(2**12, 2**12)] * 17)),
            ]:
                got = http.post(url, content=content, headers={**headers, "Content-Type": kind})
                assert got.status_code in (413, 422), got.text

        peaks = []
        for _ in range(24):
            send_all()
            peaks.append(peak(process.pid))
    assert peaks[-1] - peaks[7] < 64, peaks  # by then each of the threads has its share
    assert charges(tmp_path / "meter.db") == (0, None)
    keys.close()


def test_too_many_requests_are_told_how_long_to_wait(serve):
    with serve(limits=Limits(rate=2, rates={"blue": 1})) as served:
        assert [served.post(npy(1)).status_code for _ in range(2)] == [200, 200]
        refused = served.post(npy(1))
        assert (refused.status_code, refused.json()["type"]) == (429, "/problems#rate")
        assert 0 < int(refused.headers["Retry-After"]) <= 30
        assert refused.json()["detail"].startswith("2 requests per minute are allowed: wait ")
        assert served.charged() == 2
        assert [served.post(npy(1), team="blue").status_code for _ in range(2)] == [200, 429]


def test_a_rate_holds_for_each_team_and_a_refused_request_is_not_counted():
    now = [1000.0]
    rates = Rates(Limits(rate=2, rates={"blue": 1}), clock=lambda: now[0])

    def wait(team: str) -> str | None:
        try:
            return rates.take(team)
        except Problem as problem:
            return problem.headers["Retry-After"]

    assert [wait("red") for _ in range(4)] == [None, None, "30", "30"]
    assert [wait("blue") for _ in range(2)] == [None, "60"]
    now[0] += 29.0
    assert wait("red") == "1"
    now[0] += 1.0
    assert [wait("red") for _ in range(2)] == [None, "30"]
    now[0] += 1000.0
    assert [wait("red") for _ in range(3)] == [None, None, "30"]
    assert [Rates(Limits()).take("red") for _ in range(99)] == [None] * 99


# -- what does not show ------------------------------------------------------


def test_a_policy_works_for_every_query_and_shows_it_for_those_detected(serve):
    class Half:
        fingerprint = "half"

        def detect(self, images):
            return images[:, 0, 0, 0] > 127

    class Counting(Shuffle):
        seen = []

        def _row(self, probabilities, generator):
            self.seen.append(probabilities)
            return super()._row(probabilities, generator)

    images = noise(40)
    detected = Half().detect(images)
    near = PredictionAPI(linear_victim(), detector=Half(), policy=Shuffle(b"secret"))
    assert 10 < detected.sum() < 30
    with serve(detector=Half(), policy=Counting(b"secret")) as served:
        assert same(served.connect().query(images), near.query(images))
    assert len(Counting.seen) == 40


def test_a_policy_of_another_shape_is_told_and_not_shown():
    class Narrow:
        fingerprint = "narrow"

        def answer(self, probabilities, detected, images):
            return probabilities[:, :1]

    class Nothing:
        fingerprint = "nothing"

        def detect(self, images):
            return torch.zeros(len(images), dtype=torch.bool)

    api = ServedAPI(linear_victim(), detector=Nothing(), policy=Narrow())
    with pytest.raises(
        InputError, match=r"^the policy returned \(2, 1\) for 2 images and 10 classes, .*: fix the policy"
    ):
        api.query(noise(2))
    api.close()


def test_a_policy_that_works_in_place_alters_only_what_was_detected():
    class Flat:
        fingerprint = "flat"

        def answer(self, probabilities, detected, images):
            probabilities[detected] = 0.1
            return probabilities

    class First:
        fingerprint = "first"

        def detect(self, images):
            return torch.arange(len(images)) < 2

    parts = {"detector": First(), "policy": Flat()}
    with ServedAPI(linear_victim(), **parts) as api:
        served = api.query(noise(5)).probabilities
    assert not api.is_alive
    assert torch.equal(served, PredictionAPI(linear_victim(), **parts).query(noise(5)).probabilities)
    assert (served[:2] == 0.1).all() and (served[2:] != 0.1).all()
    with pytest.raises(InputError, match="^the policy is a object without 'fingerprint': give it a fingerprint"):
        ServedAPI(linear_victim(), detector=First(), policy=object())


def test_what_the_host_must_mend_is_not_told_to_clients(serve, tmp_path, caplog):
    place = tmp_path / "meter.db"
    with serve(place=place) as served:
        assert served.post(npy(1), Idempotency_Key="a").status_code == 200
        other = sqlite3.connect(place)
        with other:
            other.execute("UPDATE requests SET answer = x'00'")
        other.close()
        got = served.post(npy(1), Idempotency_Key="a")
        assert (got.status_code, got.json()["type"], got.headers["Retry-After"]) == (503, "/problems#unavailable", "5")
        assert got.json()["detail"] == "send it again later under the same id"
    assert "damaged: restore it from a backup" in caplog.text


def test_a_fault_shows_nothing(serve):
    class Broken:
        classes, fingerprint, image_shape = ("a", "b"), "broken", (3, SIDE, SIDE)

        def logits(self, images):
            raise KeyError("a secret layer")

    with serve(Broken()) as served:
        got = served.post(npy(1))
        assert (got.status_code, got.headers["Content-Type"]) == (500, wire.PROBLEM)
        assert "secret" not in got.text and "Traceback" not in got.text
        assert served.charged() == 0


def test_a_module_that_fails_is_a_fault_at_once(serve):
    """It would fail again: neither the server nor the client takes it for an outage."""
    victim = xl.Victim(nn.Linear(7, 2), classes=("a", "b"), image_shape=(3, SIDE, SIDE))
    with serve(victim) as served:
        got = served.post(npy(1))
        assert (got.status_code, got.json()["type"]) == (500, "/problems#fault") and "Retry-After" not in got.headers
        start = time.monotonic()
        with pytest.raises(Unanswered, match=r"^http://127.* failed: tell the host, who has a log$"):
            served.connect().query(noise(1))
        assert time.monotonic() - start < 20 and served.charged() == 0


@pytest.mark.parametrize("threshold", [math.inf, math.nan])
def test_a_detector_without_a_threshold_is_not_served(threshold):
    from extractlib.defenses.detectors import Everything

    detector = Everything()
    detector.threshold = threshold
    with pytest.raises(InputError, match=f"^the detector's threshold is {threshold}: set it before the API is served$"):
        ServedAPI(linear_victim(), detector=detector, policy=Deny())


# -- for the host ------------------------------------------------------------


def test_health_metrics_and_log(serve, caplog):
    caplog.set_level(logging.INFO, "extractlib.server")
    with serve() as served:
        assert served.send("GET", "/healthz", team=None).json() == {"status": "ok"}
        served.post(npy(3), Idempotency_Key="a")
        served.post(b"", Idempotency_Key="b")
        served.send("GET", f"/{'nothing' * 9}")
        said = served.send("GET", "/metrics", team=None).text
    assert 'extractlib_queries_total{victim="linear"} 3.0\n' in said
    assert 'extractlib_requests_total{path="/query",status="200"} 1.0\n' in said
    assert 'extractlib_requests_total{path="/query",status="422"} 1.0\n' in said
    assert 'extractlib_request_seconds_count{path="/query"} 2.0\n' in said
    assert 'path="none",status="404"' in said and "nothing" not in said
    lines = [record.fields for record in caplog.records if record.name == "extractlib.server"]
    [line] = [line for line in lines if line.get("request") == "a"]
    assert {**line, "seconds": None} == {
        "method": "POST",
        "path": "/query",
        "status": 200,
        "seconds": None,
        "team": "red",
        "request": "a",
        "images": 3,
    }
    assert "xl-" not in caplog.text


def test_a_dead_model_is_no_health():
    api, keys = ServedAPI(linear_victim()), Keys()
    app = make_app({"linear": api}, keys)
    api.close()
    with running(app) as url:
        got = httpx.get(f"{url}/healthz")
        assert (got.status_code, got.json()["type"]) == (503, "/problems#unavailable")


def test_a_stop_answers_what_it_has_charged(tmp_path):
    victim = linear_victim()
    logits, begun = victim.logits, threading.Event()

    def slowly(images):
        begun.set()
        time.sleep(1)
        return logits(images)

    object.__setattr__(victim, "logits", slowly)
    keys, got = Keys(), []
    api = ServedAPI(victim, meter=Meter())
    with running(make_app({"linear": api}, keys)) as url:
        far = xl.connect(url, key=keys.add("red"), journal=tmp_path / "journal.db")
        thread = threading.Thread(target=lambda: got.append(far.query(noise(2))))
        thread.start()
        assert begun.wait(30)
    thread.join()
    assert len(got[0]) == 2 and api.usage("linear/red").queries == 2
    assert not api.is_alive
    far.close()


# -- the client --------------------------------------------------------------


def test_a_client_refuses_what_no_server_is_needed_for(serve, monkeypatch):
    monkeypatch.delenv("EXTRACTLIB_KEY", raising=False)
    for key in (None, "", "ä", "a\nb"):
        with pytest.raises(InputError, match=r"^there is no key: pass key=…, or set EXTRACTLIB_KEY$"):
            xl.connect("http://127.0.0.1:9", key=key)
    with serve(limits=Limits(images=4)) as served:
        far = served.connect()
        assert repr(far) == f"RemoteAPI('{served.url}', 10 classes, answers full)" and served.key() not in repr(far)
        for wrong in (None, noise(1).float(), noise(1)[0]):
            with pytest.raises(InputError, match=r"^images are .*: expected uint8 of shape \(n, "):
                far.query(wrong)
        with pytest.raises(InputError, match=r"^5 images: http.* takes at most 4 at a time: set batch=…$"):
            far.query(noise(5), request="five")
        with pytest.raises(
            InputError, match=rf"^127.0.0.1: images are torch.uint8 of shape .*\(n, 3, {SIDE}, {SIDE}\)"
        ):
            far.query(torch.zeros(1, 3, 5, 5, dtype=torch.uint8))
        with pytest.raises(InputError, match=r"^request is 'a b': expected 1 to 255 visible ASCII characters$"):
            far.query(noise(1), request="a b")
        with pytest.raises(InputError, match="^127.0.0.1: the header Authorization is not Bearer with a valid key"):
            xl.connect(served.url, key="xl-a-b")
        monkeypatch.setenv("EXTRACTLIB_KEY", served.key())
        xl.connect(served.url, journal=served._folder / "environment.db").close()


def test_a_server_without_a_challenge_takes_no_copies(serve, tmp_path):
    (tmp_path / "copy.safetensors").write_bytes(b"weights")
    with serve() as served, served.connect() as api:
        told = f"^{served.url} serves no challenge and scores no copies: evaluate yours .* xl.evaluate\\(api.q"
        with pytest.raises(InputError, match=told):
            api.submit(tmp_path / "copy.safetensors", network="resnet")
        with pytest.raises(InputError, match="holds weights, but no network is named: give it, as in network="):
            api.submit(tmp_path / "copy.safetensors")


def test_with_or_without_a_slash_an_address_has_one_journal(serve):
    with serve() as served:
        journals = []
        for url in (served.url, f"{served.url}/"):
            api = xl.connect(url, key=served.key())
            with api._journal._database.transaction() as connection:
                journals.append(connection.engine.url.database)
            api.close()
        assert journals[0] == journals[1]


def test_an_address_without_a_server_is_told(tmp_path):
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(Unanswered, match=rf"^{url} does not answer \(ConnectError: .*\): check that it is running$"):
        xl.connect(url, key="a", journal=tmp_path / "journal.db")
    for wrong in ("http://[", "nothing", ""):
        with pytest.raises(InputError):
            xl.connect(wrong, key="a", journal=tmp_path / "journal.db")


def test_a_client_waits_as_it_is_asked_to_and_ever_longer_where_nobody_answers(serve, monkeypatch):
    with serve() as served:
        far = served.connect(patience=200.0)
        true, sent = far._http, []

        def answer(request: httpx.Request) -> httpx.Response:
            sent.append(request.headers["Idempotency-Key"])
            if len(sent) == 1:
                return httpx.Response(429, headers={"Retry-After": "7"})
            if len(sent) < 5:
                raise httpx.ConnectError("nobody there")
            return true.send(
                true.build_request(request.method, request.url, content=request.read(), headers=request.headers)
            )

        far._http = httpx.Client(transport=httpx.MockTransport(answer))
        slept, sleep = [], time.sleep
        # Other threads, of the server, may sleep too: very short.
        monkeypatch.setattr(time, "sleep", lambda seconds: slept.append(seconds) if seconds > 0.05 else sleep(seconds))
        assert len(far.query(noise(2), request="a")) == 2
        assert (slept, sent) == ([7.0, 0.2, 0.4, 0.8], ["a"] * 5)
        far._patience, sent[:] = 5.0, []
        with pytest.raises(Unanswered, match=r"does not answer \(status 429\): check that it is running$"):
            far.query(noise(2), request="b")
        assert sent == ["b"]
        far._http.close()
        far._http = true


def test_a_request_in_the_journal_is_sent_again_under_its_id(serve, tmp_path):
    """Killed before the answer came: the next process that asks the same pays nothing."""
    with serve() as served:
        far = served.connect()
        cut = far._query

        def killed(*arguments):
            cut(*arguments)
            raise KeyboardInterrupt

        far._query = killed
        with pytest.raises(KeyboardInterrupt):
            far.query(noise(3))
        far.close()
        again = served.connect()
        assert len(again.query(noise(3))) == 3 and again.usage().queries == 3
        again.query(noise(3))  # a request of its own
        assert again.usage().queries == 6
        assert Journal(tmp_path / "red.db")._left == {}


@pytest.mark.parametrize(
    "lost",
    [
        httpx.ReadError("cut"),  # charged, and the connection breaks before the answer is there
        httpx.Response(200, content=b"half an answer"),
        KeyboardInterrupt(),
    ],
    ids=["cut", "garbled", "interrupted"],
)
def test_who_asks_again_after_an_answer_was_lost_is_charged_once(serve, tmp_path, lost):
    with serve() as served:
        far = served.connect(patience=0.0)
        true, sent = far._http, []

        def answer(request: httpx.Request) -> httpx.Response:
            sent.append(request.headers["Idempotency-Key"])
            found = true.send(
                true.build_request(request.method, request.url, content=request.read(), headers=request.headers)
            )
            if len(sent) > 1:
                return found
            if isinstance(lost, BaseException):
                raise lost
            return lost

        far._http = httpx.Client(transport=httpx.MockTransport(answer))
        with pytest.raises(KeyboardInterrupt if isinstance(lost, KeyboardInterrupt) else Unanswered):
            far.query(noise(3))
        assert len(far.query(noise(3))) == 3
        assert sent[0] == sent[1]
        far._http.close()
        far._http = true
        assert far.usage().queries == 3
        assert Journal(tmp_path / "red.db")._left == {}


def test_what_is_refused_is_not_asked_again_under_its_id(serve, tmp_path):
    with serve(budget=2) as served:
        far = served.connect()
        for _ in range(2):
            with pytest.raises(xl.api.BudgetExceeded):
                far.query(noise(3))
        assert Journal(tmp_path / "red.db")._left == {} and far._journal._left == {}


def test_an_answer_is_worth_more_than_the_journal(serve, tmp_path, monkeypatch):
    """If the journal cannot be written, the answer is given, and asking again is free."""
    with serve(budget=9) as served:
        far = served.connect()
        delete = sql.delete

        def refused(table):
            raise InputError("journal: no space is left on its disk")

        monkeypatch.setattr("extractlib.api.client.sql.delete", refused)
        first = far.query(noise(3))
        monkeypatch.setattr("extractlib.api.client.sql.delete", delete)
        assert same(far.query(noise(3)), first)
        assert far.usage().queries == 3
        far.query(noise(3))
        assert far.usage().queries == 6


def test_threads_that_ask_the_same_take_up_an_id_that_was_left_once(tmp_path):
    journal = Journal(tmp_path / "journal.db")
    left = journal.begin("images")
    journal.settle("images", left, answered=False)
    with ThreadPoolExecutor(8) as threads:
        begun = list(threads.map(lambda _: journal.begin("images"), range(8)))
    assert begun.count(left) == 1 and len(set(begun)) == 8
    journal.close()


# -- killed ------------------------------------------------------------------


def kill_servers(patch, place, folder, *, kills: int, servers: int = 1) -> None:
    """Four clients spend a budget while each of the servers on one database is killed again and again."""
    patch.setattr("extractlib.api.client.LONGEST_WAIT", 0.5)
    each = kills + 3
    budget, keys = 4 * each * 2, Keys(place)
    key, ports, got, failed, done = keys.add("red"), [free_port() for _ in range(servers)], {}, [], threading.Event()

    def run(port: int) -> None:
        for number in range(kills):
            with server_process(place, port, budget=budget, kill_at=2 + number % 4) as process:
                assert exit_code(process, seconds=300) == -9
        with server_process(place, port, budget=budget):
            done.wait(300)

    def ask(client: int, far: RemoteAPI) -> None:
        for number in range(each):
            name = f"{client}-{number}"
            got[name] = far.query(noise(2, seed=100 * client + number), request=name)

    def noted(call, *arguments) -> None:
        try:
            call(*arguments)
        except BaseException as error:
            failed.append(error)

    hosts = [threading.Thread(target=noted, args=(run, port)) for port in ports]
    for host in hosts:
        host.start()
    clients = []
    for client in range(4):
        url = f"http://127.0.0.1:{ports[client % servers]}"
        until_healthy(url)
        far = xl.connect(url, key=key, journal=folder / f"{client}.db")
        clients.append(threading.Thread(target=noted, args=(ask, client, far)))
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert failed == []  # before a server is waited for that may have ended by an error
    until_healthy(url)
    with pytest.raises(BudgetExceeded):
        far.query(noise(1))
    done.set()
    for host in hosts:
        host.join()
    keys.close()
    assert failed == []
    near = PredictionAPI(linear_victim())
    assert len(got) == 4 * each
    for name, answers in got.items():
        client, number = map(int, name.split("-"))
        expected = near.query(noise(2, seed=100 * client + number))
        torch.testing.assert_close(answers.probabilities, expected.probabilities, rtol=0, atol=1e-5)
    assert charges(place) == (4 * each, budget)


def test_killed_servers_charge_what_they_answered(monkeypatch, tmp_path):
    kill_servers(monkeypatch, tmp_path / "meter.db", tmp_path, kills=5)


def test_killed_servers_on_one_file_charge_what_they_answered(monkeypatch, tmp_path):
    kill_servers(monkeypatch, tmp_path / "meter.db", tmp_path, kills=2, servers=2)


def test_killed_servers_on_one_postgresql_charge_what_they_answered(monkeypatch, tmp_path, postgresql):
    kill_servers(monkeypatch, postgresql(), tmp_path, kills=2, servers=2)


@pytest.mark.slow
def test_a_server_that_is_killed_50_times_charges_what_it_answered(monkeypatch, tmp_path):
    kill_servers(monkeypatch, tmp_path / "meter.db", tmp_path, kills=50)


@pytest.mark.slow
def test_two_servers_that_are_killed_50_times_charge_what_they_answered(monkeypatch, tmp_path, postgresql):
    kill_servers(monkeypatch, postgresql(), tmp_path, kills=25, servers=2)


def kill_clients(serve, folder, *, kills: int) -> None:
    """An attack that is killed again and again ends as one that was not."""
    budget = 2 * (kills + 3)
    with serve(place=folder / "meter.db", budget=budget) as served:
        for number in range(kills):
            # The first event of a life is to ask what is served.
            process = client_process(folder, served.url, served.key(), budget=budget, kill_at=2 + number % 3)
            process.join(120)
            assert process.exitcode == -9
        process = client_process(folder, served.url, served.key(), budget=budget, kill_at=None)
        process.join(120)
        assert process.exitcode == 0
        assert served.charged() == budget
        header = Knockoff(budget=budget, batch=2).header(served.connect(), pool_of(budget))
        assert served.connect().usage().remaining == 0
    near = folder / "near"
    near.mkdir()
    api = remote(PredictionAPI(linear_victim()))
    api.fingerprint = header.api
    Knockoff(budget=budget, batch=2).collect(api, pool_of(budget), near / "transfer.db")
    assert content(folder / "transfer.db") == content(near / "transfer.db")
    assert charges(folder / "meter.db") == (budget // 2, budget)


def test_a_killed_client_is_charged_what_it_was_answered(serve, tmp_path):
    kill_clients(serve, tmp_path, kills=5)


@pytest.mark.slow
def test_a_client_that_is_killed_50_times_is_charged_what_it_was_answered(serve, tmp_path):
    kill_clients(serve, tmp_path, kills=50)
