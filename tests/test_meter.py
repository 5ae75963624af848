"""The meter: charged once, answered once, whoever asks from wherever."""

import os
import sqlite3
import threading

import pytest
from linear_victim import linear_victim, noise

from extractlib.api.meter import Meter, Request, Terms
from extractlib.api.service import BudgetExceeded, PredictionAPI
from extractlib.errors import InputError

LIMIT = Terms(budget=10, price=0.5)


def request(queries: int, *, id: str = "a", client: str = "eve", digest: bytes = b"d") -> Request:
    return Request(client=client, id=id, digest=digest, queries=queries)


def charges(path) -> tuple[int, int]:
    """Return requests and queries as the file has them, read without the meter."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT count(*), sum(queries) FROM requests").fetchone()
    assert connection.execute("SELECT sum(queries) FROM accounts").fetchone()[0] == rows[1]
    connection.close()
    return rows


@pytest.fixture(params=["memory", "file"])
def meter(request, tmp_path):
    meter = Meter(tmp_path / "meter.db" if request.param == "file" else None)
    yield meter
    meter.close()


def test_charge_stores_the_answer_and_check_finds_it(meter):
    assert meter.check(request(4), LIMIT) is None
    assert meter.charge(request(4), b"answer", LIMIT) == b"answer"
    assert meter.check(request(4), LIMIT) == b"answer"
    usage = meter.usage("eve", LIMIT)
    assert (usage.queries, usage.remaining, usage.cost) == (4, 6, 2.0)


def test_a_second_charge_of_an_id_returns_the_first_answer_for_free(meter):
    meter.charge(request(4), b"first", LIMIT)
    assert meter.charge(request(4), b"second", LIMIT) == b"first"
    assert meter.usage("eve", LIMIT).queries == 4


def test_a_retry_is_answered_when_nothing_is_left(meter):
    meter.charge(request(10), b"all", LIMIT)
    assert meter.check(request(10), LIMIT) == b"all"


def test_refusals_charge_nothing(meter):
    meter.charge(request(4), b"answer", LIMIT)
    for refused, error in ((request(4, digest=b"e"), InputError), (request(7, id="b"), BudgetExceeded)):
        with pytest.raises(error):
            meter.check(refused, LIMIT)
        with pytest.raises(error):
            meter.charge(refused, b"answer", LIMIT)
    assert meter.usage("eve", LIMIT).queries == 4
    # What was refused for its size is no request yet: within the budget its id is new.
    assert meter.charge(request(6, id="b"), b"smaller", LIMIT) == b"smaller"


def test_a_failure_amid_the_charge_leaves_no_trace(meter):
    with pytest.raises(sqlite3.Error):
        meter.charge(request(4), [object()], LIMIT)
    assert meter.check(request(4), LIMIT) is None
    assert meter.usage("eve", LIMIT).queries == 0


def test_a_file_keeps_everything_between_two_meters(tmp_path):
    first = Meter(tmp_path / "meter.db")
    first.register("eve", Terms(budget=5, price=2.0))
    first.charge(request(4), b"answer", LIMIT)
    first.close()
    second = Meter(tmp_path / "meter.db")
    assert second.check(request(4), LIMIT) == b"answer"
    usage = second.usage("eve", LIMIT)
    assert (usage.queries, usage.budget, usage.remaining, usage.cost) == (4, 5, 1, 8.0)


def test_files_that_are_no_meters_are_refused(tmp_path):
    other = tmp_path / "notes.txt"
    other.write_text("no database at all, but long enough to be taken for one\n" * 40)
    for path in (other, tmp_path, tmp_path / "missing" / "meter.db"):
        with pytest.raises(InputError, match=r"is no meter's file \([^\n]*\): name one, or a new one$") as caught:
            Meter(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(("each", "charged"), [(10, 640), (11, 640)])
def test_64_threads_never_overspend_and_are_never_refused_early(meter, each, charged):
    api = PredictionAPI(linear_victim(2), budget=640, meter=meter)
    start = threading.Barrier(64)
    answered, refused = [], []

    def ask(number: int) -> None:
        image = noise(1, seed=number)
        start.wait()
        for _ in range(each):
            try:
                answered.append(api.query(image, client="eve").labels.item())
            except BudgetExceeded as error:
                refused.append(str(error))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(answered), len(refused)) == (charged, 64 * each - charged)
    assert set(refused) <= {"client 'eve' asks 1 queries and 0 of 640 are left: ask at most 0"}
    assert api.usage("eve").queries == 640
    with pytest.raises(BudgetExceeded):
        api.query(noise(1), client="eve")


def test_64_threads_with_one_id_are_charged_once(meter):
    api = PredictionAPI(linear_victim(2), budget=3, meter=meter)
    start = threading.Barrier(64)
    answers = []

    def ask() -> None:
        start.wait()
        answers.append(api.query(noise(3), request="same").probabilities.tolist())

    threads = [threading.Thread(target=ask) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 64 and all(answer == answers[0] for answer in answers)
    assert api.usage("anonymous").queries == 3


@pytest.mark.parametrize(("each", "refused"), [(80, [0, 0, 0, 0]), (100, None)])
def test_processes_share_one_file(tmp_path, each, refused):
    """Four processes against a budget of 320; each exits with the number of its refused queries."""
    path = tmp_path / "meter.db"
    victim, image = linear_victim(2), noise(1)

    def ask() -> int:
        api = PredictionAPI(victim, budget=320, meter=Meter(path))
        count = 0
        for _ in range(each):
            try:
                api.query(image, client="eve")
            except BudgetExceeded:
                count += 1
        return count

    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            status = 255
            try:
                status = ask()
            finally:
                os._exit(status)
        children.append(child)
    counts = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert sum(counts) == 4 * each - 320
    assert refused is None or counts == refused
    assert charges(path) == (320, 320)
