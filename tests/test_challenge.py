"""A class challenge: it cannot be won without queries, and a full one is played by three teams."""

import csv
import io
import itertools
import json
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import tomllib
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import hostile
import httpx
import numpy as np
import pytest
import torch

import extractlib as xl
from extractbook.build import execute
from extractbook.sphinx import furniture
from extractlib.api.keys import Keys
from extractlib.api.meter import Usage
from extractlib.api.server import running
from extractlib.attacks import Knockoff
from extractlib.challenge import board, host, sandbox
from extractlib.challenge.app import challenge_app
from extractlib.challenge.scoring import CONSTANT, FREE, Hidden, Score, public_part
from extractlib.challenge.submissions import FAILED, SCORED, WAITING, Judge, Quota, Submission, Submissions, TooMany
from extractlib.data.drawn.secret import OUTLINES, SecretTask
from extractlib.errors import InputError
from extractlib.models.training import Recipe

SECRET = bytes(range(16))
DEADLINE = datetime(2026, 12, 24, 18, tzinfo=UTC)
MORNING = datetime(2026, 12, 1, 8, tzinfo=UTC)


# -- the secret task ---------------------------------------------------------


def test_a_task_follows_from_its_secret():
    one, again = SecretTask(SECRET), SecretTask(SECRET)
    assert one.designs == again.designs
    first, second = one.draw("hidden", 60), again.draw("hidden", 60)
    assert torch.equal(first.images, second.images) and torch.equal(first.labels, second.labels)
    assert first.fingerprint == second.fingerprint and first.labels.bincount().tolist() == [3] * 20
    assert not torch.equal(first.images, one.draw("victim", 60).images)
    # The last of 128 bits counts too.
    other = SecretTask(SECRET[:-1] + bytes([SECRET[-1] ^ 1]))
    assert not {design.rows for design in one.designs} & {design.rows for design in other.designs}
    assert other.draw("hidden", 60).fingerprint != first.fingerprint
    assert one.classes[:2] == ("class 0", "class 1")  # which tell nothing
    assert "secret=" not in repr(one)


def test_classes_come_in_fours_that_differ_in_their_marks_alone():
    designs = SecretTask(SECRET).designs
    looks = [(design.outline, design.edge, design.face, design.ink) for design in designs]
    assert sorted(looks.count(look) for look in looks) == [4] * 20
    assert len({design.rows for design in designs}) == 20
    # Permuted: the labels of a four are not one after the other.
    assert [looks.index(look) // 4 for look in looks] != sorted(looks.index(look) // 4 for look in looks)
    assert {design.outline for design in designs} <= set(OUTLINES)
    for design in designs:
        assert all(row == row[::-1] and len(row) == 5 for row in design.rows) and len(design.rows) == 5


def test_labels_are_permuted():
    """Over secrets two classes are of one four in 3 of 19 cases, whichever two: within four standard deviations."""
    looks = [[design.face for design in SecretTask(number.to_bytes(16, "big")).designs] for number in range(400)]
    for first, second in ((0, 1), (3, 4), (18, 19), (0, 19)):
        same = sum(look[first] == look[second] for look in looks)
        assert abs(same - 400 * 3 / 19) < 4 * (400 * 3 / 19 * 16 / 19) ** 0.5


@pytest.mark.parametrize("values", [(b"short", 20), ("text of 16 bytes", 20), (SECRET, 1), (SECRET, 101)])
def test_what_is_no_secret_is_refused(values):
    with pytest.raises(InputError, match="(the secret is not 16 bytes|expected 2 to 100)"):
        SecretTask(*values)


# -- scores ------------------------------------------------------------------


def hidden_of(labels, victim, public, **baselines) -> Hidden:
    tensors = [torch.tensor(values) for values in (labels, victim)]
    images = torch.zeros(len(labels), 3, 4, 4, dtype=torch.uint8)
    own = {name.replace("_", " "): torch.tensor(values) for name, values in baselines.items()}
    return Hidden(images, tensors[0], torch.tensor(public, dtype=torch.bool), tensors[1], own)


def by_hand() -> Hidden:
    """Four public images and six others: the victim has 3 of 4 and 5 of 6 right, a model without queries 1 and 2."""
    return hidden_of(
        labels=[0, 1, 2, 3, 0, 1, 2, 3, 0, 1],
        victim=[0, 1, 2, 0, 0, 1, 2, 3, 0, 0],
        public=[1, 1, 1, 1, 0, 0, 0, 0, 0, 0],
        **{FREE.replace(" ", "_") + ",_one": [0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "control": [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]},
    )


def test_of_equal_scores_the_first_copy_is_better():
    """It may have taken more queries: a copy that is passed on takes none."""
    first = copy_of("owls", 0.8, 0.8, queries=60, hour=1)
    passed_on = copy_of("foxes", 0.8, 0.8, queries=1, hour=2)
    usage = used(foxes=1, owls=60)
    for over in (False, True):
        found = board.rows([passed_on, first], usage, by_hand(), over=over)
        assert [row.name for row in found if row.kind == "team"] == ["owls", "foxes"]


def test_scores_by_hand():
    """Public: accuracy 2/4, so (2/4 - 1/4) / (3/4 - 1/4); final: 4/6, so (4/6 - 2/6) / (5/6 - 2/6)."""
    public, final = by_hand().scores(torch.tensor([0, 1, 1, 0, 0, 1, 2, 1, 0, 0]))
    assert public == Score(score=0.5, recovery=0.67, agreement=0.75, errors_repeated=1.0)
    assert final == Score(score=0.6667, recovery=0.8, agreement=0.8333, errors_repeated=1.0)


def test_a_score_is_not_below_0_and_may_be_above_1():
    hidden = by_hand()
    wrong, right = hidden.scores(torch.full((10,), 5)), hidden.scores(hidden.labels)
    assert [score.score for score in wrong] == [0.0, 0.0]
    assert [score.score for score in right] == [1.5, 1.3333]
    assert [score.errors_repeated for score in right] == [0.0, 0.0]


def test_without_errors_there_are_none_repeated():
    hidden = hidden_of([0, 1] * 5, [0, 1] * 5, [1] * 4 + [0] * 6, **{FREE.replace(" ", "_"): [0] * 10})
    public, final = hidden.scores(hidden.labels)
    assert public.errors_repeated is None and json.dumps(final.to_json(), allow_nan=False)


def test_the_public_part_is_30_of_100_drawn_by_the_secret():
    part = public_part(1000, 1)
    assert part.sum() == 300 and 30 < part[:200].sum() < 90
    assert torch.equal(part, public_part(1000, 1)) and not torch.equal(part, public_part(1000, 2))


def test_hidden_images_are_the_hosts_alone(tmp_path):
    path = tmp_path / "hidden.safetensors"
    by_hand().save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    given = torch.tensor([0, 1, 1, 0, 0, 1, 2, 1, 0, 0])
    assert Hidden.load(path).scores(given) == by_hand().scores(given)
    for content in (b"", b"junk", None):
        path.write_bytes(content) if content is not None else path.unlink()
        with pytest.raises(InputError, match=r"holds no hidden images .*: make the challenge again$"):
            Hidden.load(path)


# -- the cheat -----------------------------------------------------------------


def test_over_all_permutations_of_the_labels_no_model_is_better_than_chance():
    """Whatever it does: each image's true label is each class equally often."""
    given, labels = torch.tensor([3, 1, 1, 0, 2, 2, 2, 0]), torch.tensor([0, 1, 2, 3] * 2)
    found = [(given == torch.tensor(order)[labels]).double().mean() for order in itertools.permutations(range(4))]
    assert torch.stack(found).mean() == pytest.approx(1 / 4)


@pytest.fixture(scope="module")
def plain():
    """What a victim and hidden images of a secret task may be, and a challenge's best model without queries."""
    task = SecretTask(SECRET)
    hidden = task.draw("hidden", 1_000)
    others = [SecretTask(bytes([number]) * 16) for number in (1, 2)]
    free = {f"{FREE}, {number}": _trained(other.draw("free", 1_500)) for number, other in enumerate(others)}
    victim = _trained(task.draw("victim", 2_000)).predict(hidden.images)
    models = {name: model.predict(hidden.images) for name, model in free.items()}
    models[CONSTANT] = torch.zeros_like(hidden.labels)
    return Hidden(hidden.images, hidden.labels, public_part(1_000, 1), victim, models)


def _trained(images: xl.ImageSet) -> xl.Victim:
    return xl.Victim.train(images, recipe=Recipe(epochs=6, learning_rate=0.05), progress=False)


def test_who_draws_with_the_public_program_wins_nothing(plain):
    """The cheat has the program, any number of secrets of its own and all the time it wants, and asks nothing."""
    worlds = [SecretTask(bytes([number]) * 16).draw("cheat", 500) for number in range(10, 16)]
    images, labels = (torch.cat([getattr(world, name) for world in worlds]) for name in ("images", "labels"))
    cheat = _trained(xl.images(images, labels, classes=worlds[0].classes, name="cheat"))
    assert (plain.victim == plain.labels).double().mean() > 0.7  # so there is something to win
    for score in plain.scores(cheat.predict(plain.images)):
        assert score.score < 0.1 and score.agreement < 0.15


def test_who_knows_which_images_belong_together_wins_nothing_in_one_copy(plain):
    """Far more than a cheat can know; but the labels are permuted. The mean over permutations is chance, 1 in 20."""
    found = []
    for seed in range(190):
        order = torch.randperm(20, generator=torch.Generator().manual_seed(seed))
        found.append(plain.scores(order[plain.labels])[1].score)
    assert np.mean(found) < 0.06 and np.quantile(found, 0.95) < 0.25


def test_scores_of_many_copies_cannot_be_climbed_without_queries(tmp_path):
    store = store_in(tmp_path, Quota(a_day=100, queries=50))
    store.add("cheat", b"first", network=None, queries=1)
    with pytest.raises(
        TooMany, match="^team 'cheat' has been charged for 49 queries, but copy 2 is scored only from 50 on: query"
    ):
        store.add("cheat", b"second", network=None, queries=49)
    assert store.add("cheat", b"second", network=None, queries=50).state == WAITING
    with pytest.raises(TooMany, match="copy 3 is scored only from 100 on"):
        store.add("cheat", b"third", network=None, queries=99)


# -- copies ------------------------------------------------------------------


def store_in(folder, quota=None, *, place=None, clock=None) -> Submissions:
    place = folder / "challenge.db" if place is None else place
    Keys(place).close()
    seconds = itertools.count()
    clock = clock or (lambda: MORNING + timedelta(seconds=next(seconds)))
    return Submissions(place, folder / "submissions", quota=quota or Quota(a_day=3, queries=0), clock=clock)


@pytest.fixture(params=["file", "postgresql"])
def place(request, tmp_path):
    return tmp_path / "challenge.db" if request.param == "file" else request.getfixturevalue("postgresql")()


def test_copies_are_kept_with_their_hash_and_limited_by_the_day(tmp_path, place):
    now = [MORNING]
    store = store_in(tmp_path, place=place, clock=lambda: now[0])
    added = [store.add("red", f"copy {number}".encode(), network=None, queries=7) for number in range(3)]
    assert [store.content(one).read_bytes() for one in added] == [b"copy 0", b"copy 1", b"copy 2"]
    assert [one.sha256 for one in added] == [sha256(f"copy {number}".encode()).hexdigest() for number in range(3)]
    assert store.add("red", b"copy 1", network=None, queries=9) == added[1]  # sent twice
    with pytest.raises(
        TooMany, match="^team 'red' has handed in 3 copies today: the next one is accepted from 00:00 UTC"
    ):
        store.add("red", b"copy 3", network=None, queries=7)
    assert store.add("blue", b"copy 0", network="resnet", queries=0).sha256 == added[0].sha256
    now[0] += timedelta(hours=16)  # midnight
    assert store.add("red", b"copy 3", network=None, queries=7).received == "2026-12-02T00:00:00.000000+00:00"
    assert sorted(one.team for one in store.all()) == ["blue", "red", "red", "red", "red"]
    assert store.all(team="red", id=added[0].id) == [added[0]] and store.all(team="blue", id=added[0].id) == []
    store.close()


def test_failed_copies_are_not_counted_up_to_ten_times_as_many(tmp_path):
    store = store_in(tmp_path, Quota(a_day=1, queries=0))
    for number in range(10):
        store.failed(store.add("red", bytes([number]), network=None, queries=0).id, "it failed")
    with pytest.raises(TooMany, match="^team 'red' has handed in 10 copies today, and most failed: the next one"):
        store.add("red", b"again", network=None, queries=0)
    assert {one.state for one in store.all()} == {FAILED}
    assert store.add("blue", bytes([0]), network=None, queries=0).state == WAITING
    store.close()


def linear_hidden(count: int = 40) -> Hidden:
    images = torch.randint(
        0, 256, (count, *hostile.SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    labels = (images.flatten(1).double() @ torch.from_numpy(hostile.WEIGHTS).double()).argmax(1)
    free = {CONSTANT: (labels + 1) % 3}
    return Hidden(images, labels, torch.arange(count) < 12, labels, free)


def settled(store: Submissions, judge: Judge) -> list[Submission]:
    """Return all copies when none waits."""
    end = time.monotonic() + 300
    while any(one.state == WAITING for one in store.all()):
        assert time.monotonic() < end, store.all()
        time.sleep(0.05)
    judge.close()
    return store.all()


def test_a_team_that_has_asked_nothing_hands_in_nothing(tmp_path):
    """Its copy would be another team's."""
    store = store_in(tmp_path, Quota(a_day=3, queries=50))
    with pytest.raises(
        TooMany, match="^team 'red' has been charged for 0 queries, but copy 1 is scored only from 1 on"
    ):
        store.add("red", b"passed on", network=None, queries=0)
    assert store.add("red", b"own", network=None, queries=1).state == WAITING


def test_what_a_killed_server_left_is_scored_by_the_next(tmp_path):
    store = store_in(tmp_path)
    store.add("red", hostile.good(), network=None, queries=1)
    store.close()
    store = store_in(tmp_path)
    judge = Judge(store, linear_hidden(), ("a", "b", "c"), scoring_sandbox())
    [one] = settled(store, judge)
    assert (one.state, one.public.score, one.final.recovery) == (SCORED, 1.0, 1.0)


def test_a_copy_that_waits_is_queued_once(tmp_path):
    """A team that sends it again may not hold up the others'."""
    begun, go, scored = threading.Event(), threading.Event(), []

    class Slow:
        def labels(self, model, images, *, classes):
            begun.set()
            assert go.wait(30)
            scored.append(model)
            return linear_hidden(len(images)).labels

    store = store_in(tmp_path)
    judge = Judge(store, linear_hidden(), ("a", "b", "c"), Slow())
    first, second = (store.add(team, team.encode(), network=None, queries=0) for team in ("red", "blue"))
    judge.put(first)
    assert begun.wait(30)
    for _ in range(3):
        judge.put(first)
        judge.put(second)
    go.set()
    assert {one.state for one in settled(store, judge)} == {SCORED}
    assert scored == [b"red", b"blue"] and judge._queued == set()


def scoring_sandbox():
    """Return what stands for the sandbox, which has tests of its own."""

    class Plain:
        def labels(self, model, images, *, classes):
            if model != hostile.good():
                raise InputError("it is no\nmodel")
            return linear_hidden(len(images)).labels

    return Plain()


def test_a_copy_that_cannot_be_scored_says_why_and_not_where_it_is_kept(tmp_path):
    store = store_in(tmp_path, Quota(a_day=9, queries=0))
    judge = Judge(store, linear_hidden(), ("a", "b", "c"), scoring_sandbox())
    for content, network in ((b"junk", None), (b"junk", "tiny"), (b"", "tiny")):
        judge.put(store.add("red", content, network=network, queries=0))
    first, second, third = settled(store, judge)
    assert first.reason == "it is no model"
    assert second.reason.startswith("the file holds no weights of 'tiny' with 3 classes (")
    assert {one.state for one in (first, second, third)} == {FAILED} and str(tmp_path) not in second.reason


@pytest.mark.skipif(not hostile.SANDBOX, reason="there is no bubblewrap")
def test_hostile_copies_one_after_the_other_leave_the_judge_at_work(tmp_path):
    store = store_in(tmp_path, Quota(a_day=9, queries=0))
    judge = Judge(store, linear_hidden(), ("a", "b", "c"), sandbox.Sandbox(seconds=4))
    for model in (
        hostile.of_20_gigabytes(),
        hostile.of_an_hour(),
        hostile.of_a_custom_operator(),
        hostile.of_another_file(str(tmp_path / "challenge.db")),
        hostile.good(),
    ):
        judge.put(store.add("red", model, network=None, queries=0))
    *refused, last = settled(store, judge)
    assert [one.reason for one in refused] == [
        "it needs more memory than allowed: use a smaller model",
        "it runs for more than 4 seconds: use a faster model",
        "onnxruntime does not have one of the model's operators: use only those of ONNX",
        "the model keeps weights in another file: export it as one file, with external_data=False",
    ]
    assert (last.state, last.public.score) == (SCORED, 1.0)


def test_a_fault_of_the_judges_ends_one_copy_and_is_not_told(tmp_path, caplog):
    class Broken:
        def labels(self, model, images, *, classes):
            raise KeyError("a secret layer")

    store = store_in(tmp_path)
    judge = Judge(store, linear_hidden(), ("a", "b", "c"), Broken())
    judge.put(store.add("red", b"a", network=None, queries=0))
    judge.put(store.add("red", b"b", network=None, queries=0))
    found = settled(store, judge)
    assert [one.reason for one in found] == ["the server failed: tell the host, who has a log"] * 2
    assert "a secret layer" in caplog.text


def test_a_fault_of_the_hosts_database_is_nobodys_failure_and_the_judge_goes_on(tmp_path, caplog, monkeypatch):
    store = store_in(tmp_path)
    judge = Judge(store, linear_hidden(), ("a", "b", "c"), scoring_sandbox())
    scored = store.scored

    def refused(*_):
        monkeypatch.setattr(store, "scored", scored)
        raise InputError(f"submissions {tmp_path}/challenge.db: another process is using it")

    monkeypatch.setattr(store, "scored", refused)
    monkeypatch.setattr("extractlib.challenge.submissions.AGAIN", 2.0)
    first = store.add("red", hostile.good(), network=None, queries=0)
    judge.put(first)
    judge.put(store.add("blue", hostile.good(), network=None, queries=0))
    while store.all(team="blue")[0].state == WAITING:
        time.sleep(0.01)
    [waiting] = store.all(team="red")
    assert (waiting.state, waiting.reason) == (WAITING, first.reason)
    assert "another process is using it" in caplog.text
    assert {one.state for one in settled(store, judge)} == {SCORED}


def test_what_is_decided_about_a_copy_stays_so(tmp_path):
    """Two servers may score one copy, and the second may be too slow."""
    store = store_in(tmp_path)
    name = store.add("red", b"copy", network=None, queries=1).id
    score = Score(score=0.5, recovery=0.6, agreement=0.7, errors_repeated=None)
    store.scored(name, score, score)
    store.failed(name, "use a faster model")
    [found] = store.all()
    assert (found.state, found.public) == (SCORED, score)


def test_no_key_waits_while_a_copy_is_written(tmp_path, monkeypatch):
    """The meter and the keys are in the same database."""
    monkeypatch.setattr("extractlib.database.WAIT", 0.2)
    store, keys, write, written = (
        store_in(tmp_path, Quota(a_day=3, queries=50)),
        Keys(tmp_path / "challenge.db"),
        Path.write_bytes,
        [],
    )

    def slow(path, content):
        written.append(path.name)
        keys.add(f"team{len(written)}")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", slow)
    store.add("red", b"copy", network=None, queries=1)
    assert len(written) == 1 and keys.teams() == ["team1"]
    assert [file.read_bytes() for file in (tmp_path / "submissions").iterdir()] == [b"copy"]
    with pytest.raises(TooMany):
        store.add("blue", b"another", network=None, queries=0)
    assert len(list((tmp_path / "submissions").iterdir())) == 1


# -- the scoreboard ------------------------------------------------------------


def copy_of(team: str, public: float, final: float, *, queries: int = 10, hour: int = 1) -> Submission:
    scores = {
        part: Score(score=score, recovery=score, agreement=score, errors_repeated=None)
        for part, score in (("public", public), ("final", final))
    }
    return Submission(
        id=f"{team}-{hour}",
        team=team,
        received=f"2026-12-01T{hour:02}",
        sha256="ab",
        size=1,
        network=None,
        queries=queries,
        state=SCORED,
        **scores,
    )


def used(**queries: int) -> dict[str, Usage]:
    return {team: Usage(queries=number, budget=100, cost=0.0) for team, number in queries.items()}


def test_the_best_public_copy_counts_and_the_final_score_decides():
    copies = [
        copy_of("red", 0.5, 0.9, hour=1),
        copy_of("blue", 0.8, 0.4, hour=2, queries=90),
        copy_of("red", 0.7, 0.6, hour=3, queries=50),
        copy_of("red", 0.7, 0.99, hour=4),
        copy_of("green", 0.8, 0.5, hour=5, queries=20),
        copy_of("gray", 0.9, 0.9, hour=6, queries=101),  # over the budget
    ]
    usage = used(red=60, blue=90, green=30, gray=101, white=0)

    def teams(over):
        found = board.rows(copies, usage, by_hand(), over=over)
        return [(row.rank, row.name, row.queries) for row in found if row.kind == "team"], found

    before, found = teams(False)
    assert before == [(1, "blue", 90), (2, "green", 20), (3, "red", 50), (None, "white", 0), (None, "gray", 101)]
    assert [row.final for row in found] == [None] * len(found)
    after, found = teams(True)
    assert after == [(1, "red", 50), (2, "green", 20), (3, "blue", 90), (None, "white", 0), (None, "gray", 101)]
    # The host's own models stand between the teams, without a rank: the control's score is above 1.
    assert [(row.name, row.rank) for row in found if row.kind == "host"] == [("control", None), (f"{FREE}, one", None)]
    assert found[0].name == "control" and found[0].final.score == 1.3333


def test_as_csv_no_name_is_a_formula():
    copies = [copy_of("=1+1", 0.5, 0.4)]
    text = board.to_csv(board.rows(copies, used(**{"=1+1": 10, "red": 0}), by_hand(), over=True))
    lines = {row["name"]: row for row in csv.DictReader(io.StringIO(text))}
    assert lines["'=1+1"]["public_score"] == "0.5" and lines["'=1+1"]["final_score"] == "0.4"
    assert lines["red"]["public_score"] == "" and lines["red"]["queries"] == "0"


# -- made, served and played -----------------------------------------------------


TINY = Recipe(epochs=1, learning_rate=0.05)


def plan_of(*teams: str, **values) -> host.Plan:
    small = {"victim_images": 1_200, "hidden_images": 400, "free_images": 100, "free": 1, "budget": 160, "classes": 8}
    recipes = {"victim_recipe": Recipe(epochs=8, learning_rate=0.05), "surrogate_recipe": TINY}
    return host.Plan(**{"teams": teams, "deadline": DEADLINE, "title": "Steal it", **small, **recipes, **values})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("challenge") / "autumn"
    host.make(folder, plan_of("red", "blue", "green & <b>"), secret=SECRET)
    return folder


@pytest.fixture
def challenge(made, tmp_path):
    """Return a copy of the folder, the keys by team, and what serves it."""
    folder = tmp_path / "autumn"
    shutil.copytree(made, folder)
    with (folder / "keys.csv").open(encoding="utf-8", newline="") as file:
        keys = {row["team"]: row["key"] for row in csv.DictReader(file)}
    now = [MORNING]
    return folder, keys, now, lambda: running(challenge_app(folder, host.read(folder), clock=lambda: now[0]))


def test_what_is_made(made):
    names = {path.name: stat.S_IMODE(path.stat().st_mode) for path in made.iterdir()}
    assert set(names) >= {"challenge.toml", "challenge.db", "keys.csv", "secret", "victim.safetensors"}
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert names["secret"] == names["hidden.safetensors"] == names["keys.csv"] == 0o600
    assert bytes.fromhex((made / "secret").read_text()) == SECRET
    settings = host.read(made)
    assert settings.challenge.deadline == DEADLINE and settings.victims["challenge"].budget == 160
    assert settings.challenge.title == "Steal it" and settings.database == str(made / "challenge.db")
    hidden, task = Hidden.load(made / "hidden.safetensors"), SecretTask(SECRET, 8).draw("hidden", 400)
    assert torch.equal(hidden.images, task.images) and torch.equal(hidden.labels, task.labels)
    classes = SecretTask(SECRET, 8).classes
    victim = xl.Victim.load(made / "victim.safetensors", network="resnet", classes=classes)
    assert torch.equal(victim.predict(hidden.images), hidden.victim)
    assert set(hidden.baselines) == {
        f"{FREE}, secret 1",
        CONSTANT,
        "random Knockoff, 100 queries",
        "random Knockoff, 160 queries",
        "independent control",
    }


def test_a_folder_is_not_made_twice_or_by_half(made, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="already exists: name a new folder$"):
        host.make(made, plan_of("red"))
    monkeypatch.setattr(host, "_baselines", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        host.make(tmp_path / "half", plan_of("red", victim_images=50, victim_recipe=TINY))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"teams": ("a/b",)}, "team is 'a/b'"),
        ({"budget": 0}, "budget is 0"),
        ({"answers": "top-0"}, "unknown granularity 'top-0'"),
        ({"deadline": datetime(2026, 12, 24)}, "challenge.deadline: Input should have timezone info"),
        ({"submissions": 0}, "challenge.submissions: Input should be greater than or equal to 1"),
        ({"classes": 101, "hidden_images": 2_000}, "101 classes: expected 2 to 100"),
        ({"hidden_images": 70}, "70 hidden images of 8 classes: expected at least ten of each"),
        ({"free": 0}, "number of models without queries is 0"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(values, words):
    with pytest.raises(InputError, match=words):
        plan_of(**{"teams": ("red",), **values})


def test_a_title_of_any_kind_is_written_as_toml(tmp_path):
    for title in ('"Steal" it', "Löwen \\ 'x' = [1]", "a\nb\t\x01"):
        assert tomllib.loads(host._toml(plan_of("red", title=title).settings()))["challenge"]["title"] == title


def test_three_teams_play_a_full_challenge(challenge, tmp_path):
    folder, keys, now, serve = challenge
    with serve() as url, httpx.Client(base_url=url) as visitor:
        pool = xl.load("atlas").queries
        apis = {team: xl.connect(url, key=key, journal=tmp_path / f"{key[3:9]}.db") for team, key in keys.items()}
        red, blue, green = (apis[team] for team in ("red", "blue", "green & <b>"))
        assert red.classes == tuple(f"class {number}" for number in range(8)) and red.usage().budget == 160

        # Red spends all of its budget and hands in safetensors, blue half of it and ONNX, green asks once.
        recipe = Recipe(epochs=10, learning_rate=0.1, batch_size=32)
        copy = Knockoff(budget=160)(red, pool, recipe=recipe, progress=False)
        copy.save(tmp_path / "red.safetensors")
        said = red.submit(tmp_path / "red.safetensors", network="resnet")
        assert said["state"] == "scored" and said["queries"] == 160 and "final" not in said
        assert red.submit(tmp_path / "red.safetensors", network="resnet") == said  # sent again: the same copy
        half = Knockoff(budget=80)(blue, pool, recipe=recipe, progress=False)
        if hostile.SANDBOX:
            images = {"dynamic_shapes": ({0: "n"},), "external_data": False, "verbose": False}
            torch.onnx.export(half.model, (pool.images[:2],), tmp_path / "blue", **images)
            said_of_blue = blue.submit(tmp_path / "blue")
        else:
            half.save(tmp_path / "blue")
            said_of_blue = blue.submit(tmp_path / "blue", network="resnet")
        assert said_of_blue["public"] == as_json(folder, half.predict)
        xl.Surrogate(copy.model, classes=red.classes).save(tmp_path / "green.safetensors")
        with pytest.raises(InputError, match="has been charged for 0 queries, but copy 1 is scored only from 1 on"):
            green.submit(tmp_path / "green.safetensors", network="resnet")
        green.query(pool.images[:1])
        with pytest.raises(InputError, match=r"was not scored: the file holds no weights of 'tiny' with 8 classes"):
            green.submit(tmp_path / "green.safetensors", network="tiny")
        with pytest.raises(InputError, match="unknown network 'none': use one of resnet, "):
            green.submit(tmp_path / "green.safetensors", network="none")
        with pytest.raises(InputError, match="cannot be read .*: name the file that holds the copy"):
            green.submit(tmp_path / "nothing")
        with pytest.raises(InputError, match=r"green.safetensors holds weights, but no network is named: give it, as"):
            green.submit(tmp_path / "green.safetensors")
        (tmp_path / "junk.onnx").write_bytes(b"junk")
        with pytest.raises(InputError, match="it is not an ONNX model: send the file|this server does not accept ONNX"):
            green.submit(tmp_path / "junk.onnx")

        # Nobody sees another's copies.
        for path in (f"/submissions/{said['id']}", "/submissions/nothing"):
            got = visitor.get(path, headers={"Authorization": f"Bearer {keys['blue']}"})
            assert (got.status_code, got.json()["type"]) == (404, "/problems#missing")
        assert visitor.get("/submissions").status_code == 401
        own = visitor.get("/submissions", headers={"Authorization": f"Bearer {keys['red']}"}).json()
        assert [one["id"] for one in own] == [said["id"]]

        before = visitor.get("/scoreboard.json").json()
        teams = [row for row in before["rows"] if row["kind"] == "team"]
        assert [row["name"] for row in teams] == ["red", "blue", "green & <b>"]
        assert teams[0]["public_score"] > teams[1]["public_score"] >= 0 and teams[2]["public_score"] is None
        assert not before["over"] and all(row["final_score"] is None for row in before["rows"])
        page = visitor.get("/")
        assert "green &amp; &lt;b&gt;" in page.text and "<script" not in page.text and "Final" not in page.text
        assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")

        now[0] = DEADLINE
        with pytest.raises(InputError, match=r"copies were accepted until 2026-12-24T18:00:00\+00:00"):
            red.submit(tmp_path / "blue")
        after = visitor.get("/scoreboard.json").json()
        first = next(row for row in after["rows"] if row["name"] == "red")
        hidden = Hidden.load(folder / "hidden.safetensors")
        public, final = hidden.scores(copy.predict(hidden.images))
        assert after["over"] and first["final_score"] == final.score
        assert first["public_score"] == said["public"]["score"] == public.score
        assert first["sha256"] == said["sha256"]
        assert "Final score" in visitor.get("/").text
        rows = list(csv.DictReader(io.StringIO(visitor.get("/scoreboard.csv").text)))
        assert [row["name"] for row in rows] == [row["name"] for row in after["rows"]]
        for api in apis.values():
            api.close()


def as_json(folder, predict) -> dict:
    hidden = Hidden.load(folder / "hidden.safetensors")
    return hidden.scores(predict(hidden.images))[0].to_json()


def test_the_pages_lines_export_a_copy_with_its_scaling(tmp_path, monkeypatch):
    import onnxruntime

    page = (execute.BOOK / "challenge.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(images = .*?torch.onnx.export.*?)```", page, re.DOTALL)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 4))
    copy = xl.Surrogate(module, classes=[*"abcd"], mean=[0.5, 0.4, 0.3], std=0.25)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "challenge.md", "exec"), {"torch": torch, "copy": copy})
    session = onnxruntime.InferenceSession("copy.onnx")
    [given], images = session.get_inputs(), xl.load("signs").test.images[:5]
    [scores] = session.run(None, {given.name: (images.float() / 255).numpy()})
    torch.testing.assert_close(torch.from_numpy(scores), copy.logits(images), atol=1e-4, rtol=1e-4)


def test_copies_that_cannot_be_taken_are_refused(challenge):
    folder, keys, _, serve = challenge
    text = (folder / "challenge.toml").read_text().replace("[challenge]", "[challenge]\nmegabytes = 1")
    (folder / "challenge.toml").write_text(text)
    with serve() as url, httpx.Client(base_url=url, headers={"Authorization": f"Bearer {keys['red']}"}) as client:
        for content, status, words in (
            (b"", 422, "the body is empty: send the file that holds the copy"),
            (bytes(2**20 + 1), 413, "the body has 1,048,577 bytes: send at most 1,048,576"),
        ):
            got = client.post("/submissions", content=content)
            assert (got.status_code, got.json()["detail"]) == (status, words)
        assert client.post("/submissions", content=b"a", params={"network": "x" * 51}).status_code == 422
        assert client.get("/submissions").json() == []


def test_a_slow_upload_delays_its_team_alone(challenge):
    _, keys, _, serve = challenge
    head = "POST /submissions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nContent-Length: 1000\r\n\r\nabc"
    *slow, third = keys.values()
    with serve() as url, httpx.Client(base_url=url, headers={"Authorization": f"Bearer {third}"}, timeout=20) as client:
        host, port = url.removeprefix("http://").split(":")
        with ExitStack() as opened:
            for key in slow:
                connection = opened.enter_context(socket.create_connection((host, int(port)), timeout=30))
                connection.sendall(head.format(key).encode())
            time.sleep(0.5)
            assert client.post("/submissions", content=b"").json()["detail"].startswith("the body is empty")


def test_without_a_sandbox_only_safetensors_are_taken(challenge, monkeypatch, caplog):
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    _, keys, _, serve = challenge
    with serve() as url, httpx.Client(base_url=url, headers={"Authorization": f"Bearer {keys['red']}"}) as client:
        got = client.post("/submissions", content=b"onnx")
        assert (got.status_code, got.json()["detail"]) == (
            415,
            "this server does not accept ONNX: send safetensors and name the network",
        )
    assert "models in ONNX are refused: there is no bubblewrap: install bubblewrap" in caplog.text


def test_the_starter_notebook_runs_as_it_is(challenge, tmp_path, monkeypatch, capsys):
    _, keys, _, serve = challenge
    with serve() as url:
        notebook = httpx.get(f"{url}/starter.ipynb").json()
        assert len(notebook["cells"]) <= 10 and all(not cell.get("outputs") for cell in notebook["cells"])
        install = "".join(notebook["cells"][1]["source"])
        assert install == furniture.setup_cell().replace('url, "ipywidgets"]', 'url, "httpx"]')
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("EXTRACTLIB_KEY", keys["blue"])
        names: dict = {}
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                text = "".join(cell["source"])
                exec(compile(text, cell["id"], "exec"), names)
        said = [line for line in capsys.readouterr().out.splitlines() if "'state'" in line]
        assert len(said) == 1 and "'scored'" in said[0] and "'queries': 100" in said[0]
        # What is commented out there, for a network of one's own.
        text = "\n".join(
            "".join(cell["source"]) for cell in notebook["cells"] if cell["id"] in ("export-code", "submit")
        )
        lines = [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")]
        if hostile.SANDBOX:
            exec(compile("\n".join(lines), "comments", "exec"), names)
            assert "'scored'" in capsys.readouterr().out.splitlines()[-1]
        names["api"].close()


# -- the commands ----------------------------------------------------------------


def test_one_line_makes_a_challenge_and_another_serves_it(command, tmp_path, monkeypatch, made):
    plans = []
    monkeypatch.setattr(host, "make", lambda folder, plan: plans.append((folder, plan)))
    (tmp_path / "teams.csv").write_text("team\nred\nblue\n")
    words = ("--teams", str(tmp_path / "teams.csv"), "--budget", "700", "--answers", "top-3")
    status, printed, errors = command("challenge", "new", "autumn", *words, "--deadline", "2030-12-24")
    [(folder, plan)] = plans
    assert (status, errors, str(folder)) == (0, "", "autumn")
    assert printed.endswith("  extractlib challenge serve autumn\n") and "a key for each of 2 teams" in printed
    assert (plan.teams, plan.budget, plan.answers) == (("red", "blue"), 700, "top-3")
    assert plan.deadline == datetime(2030, 12, 24, 23, 59, 59, tzinfo=UTC)
    for day in ("20301224", "2030-W52-2"):
        command("challenge", "new", "a", *words, "--deadline", day)
        assert plans.pop()[1].deadline == datetime(2030, 12, 24, 23, 59, 59, tzinfo=UTC)
    command("challenge", "new", "b", *words, "--deadline", "2030-12-24T18:00+01:00")
    assert plans[1][1].deadline == datetime(2030, 12, 24, 17, tzinfo=UTC)
    status, _, errors = command("challenge", "new", "c", *words, "--deadline", "soon")
    assert (status, errors) == (
        2,
        "extractlib: deadline is 'soon': expected a day or a time, as in 2030-12-24T18:00+01:00\n",
    )
    for past in ("2020-12-24", "2020-12-24T18:00+01:00", datetime.now(UTC).isoformat()):
        status, printed, errors = command("challenge", "new", "c", *words, "--deadline", past)
        assert (status, printed) == (2, "")
        told = r"extractlib: deadline is '.*', but it is 20\S+Z already: name a later one\n"
        assert re.fullmatch(told, errors) and past in errors
    assert len(plans) == 2
    ran = []
    monkeypatch.setattr("uvicorn.run", lambda app, **options: ran.append(options))
    monkeypatch.setattr("logging.basicConfig", lambda **_: None)
    status, printed, errors = command("challenge", "serve", str(made), "--port", "8123")
    assert (status, errors, ran[0]["port"]) == (0, "", 8123)
    assert printed == "Steal it: scoreboard http://127.0.0.1:8123, notebook http://127.0.0.1:8123/starter.ipynb\n"
    status, _, errors = command("challenge", "serve", str(tmp_path))
    assert status == 2 and "challenge.toml cannot be read as TOML" in errors


STOPPED = """
import os, signal, sys
from extractlib import __main__
from extractlib.challenge import host

number = int(sys.argv.pop())
signal.signal(number, signal.SIG_DFL)  # under nohup, a hang-up would be ignored

def fill(folder, *_):
    (folder / host.SECRET).write_text("secret")
    print(len(list(folder.parent.glob(".autumn-*/secret"))), flush=True)
    os.kill(os.getpid(), number)

host._fill = fill
sys.exit(__main__.main())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_challenge_that_is_stopped_while_it_is_made_leaves_no_secret(tmp_path, number):
    (tmp_path / "teams.csv").write_text("team\nred\n")
    words = ("challenge", "new", "autumn", "--teams", "teams.csv", "--deadline", "2030-12-24", str(int(number)))
    done = subprocess.run([sys.executable, "-c", STOPPED, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 128 + number and done.stdout == "1\n", done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["teams.csv"] and "Traceback" not in done.stderr


@pytest.mark.parametrize("how", ["relative", "absolute"])
def test_one_option_names_one_database_in_both_commands(command, tmp_path, monkeypatch, how):
    """Both take a relative path from the challenge's folder, wherever they are run."""
    folder, served = tmp_path / "autumn", []

    def make(folder, plan):
        folder.mkdir()
        (folder / host.TOML).write_text(host._toml(plan.settings()))
        made.append(Keys(folder / plan.database).add("red"))

    made: list[str] = []
    monkeypatch.setattr(host, "make", make)
    monkeypatch.setattr(
        "extractlib.challenge.app.challenge_app", lambda folder, settings: served.append(Keys(settings.database))
    )
    monkeypatch.setattr("extractlib.cli_challenge.listen", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "teams.csv").write_text("team\nred\n")
    database = ("--database", "meter.db" if how == "relative" else str(tmp_path / "elsewhere.db"))
    words = ("--teams", "teams.csv", "--deadline", "2030-12-24")
    assert command("challenge", "new", str(folder), *words, *database)[0] == 0
    assert command("challenge", "serve", str(folder), *database)[0] == 0
    assert served[0].team(made[0]) == "red" and not (tmp_path / "meter.db").exists()
    status, _, errors = command("challenge", "serve", str(folder), "--database", "other.db")
    assert status == 2 and "other.db does not exist: name the --database that the challenge was created" in errors
    Keys(folder / "empty.db").close()
    status, _, errors = command("challenge", "serve", str(folder), "--database", "empty.db")
    assert status == 2 and "empty.db has no keys: name the --database" in errors
    assert not (folder / "other.db").exists() and len(served) == 1
