"""The meter: charged once, answered once, whoever asks from wherever."""

import os
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_victim import linear_victim, noise
from postgres import charges, execute

from extractlib import database
from extractlib.api.meter import HIGHEST_PRICE, TABLES, BudgetExceeded, Meter, Request, Terms, Usage
from extractlib.api.service import PredictionAPI
from extractlib.errors import HIGHEST, InputError

LIMIT = Terms(budget=10, price=0.5)


def request(queries: int, *, id: str = "a", client: str = "eve", digest: bytes = b"d") -> Request:
    return Request(client=client, id=id, digest=digest, queries=queries)


@pytest.fixture(params=["file", "postgresql"])
def place(request, tmp_path):
    """A database that several meters may share, on each of the two systems."""
    return tmp_path / "meter.db" if request.param == "file" else request.getfixturevalue("postgresql")()


@pytest.fixture(params=["memory", "file", "postgresql"])
def meter(request, tmp_path):
    made = {"memory": lambda: None, "file": lambda: tmp_path / "meter.db"}
    meter = Meter(made[request.param]() if request.param in made else request.getfixturevalue("postgresql")())
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


REFUSING = {
    "sqlite": ["CREATE TRIGGER no BEFORE UPDATE ON accounts BEGIN SELECT RAISE(ABORT, 'not today'); END"],
    "postgresql": [
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not today'; END $$",
        "CREATE TRIGGER no BEFORE UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION no()",
    ],
}


def test_a_failure_amid_the_charge_leaves_no_trace(place):
    """The request is stored already when the account refuses its charge."""
    meter = Meter(place)
    in_postgresql = isinstance(place, str)
    for statement in REFUSING["postgresql" if in_postgresql else "sqlite"]:
        execute(place, statement)
    with pytest.raises(
        InputError, match=r"^meter [^\n]*: not today[^\n]*: (name another file|check that it is running)"
    ):
        meter.charge(request(4), b"answer", LIMIT)
    execute(place, "DROP TRIGGER no ON accounts" if in_postgresql else "DROP TRIGGER no")
    assert meter.check(request(4), LIMIT) is None
    assert meter.usage("eve", LIMIT) == Usage(queries=0, budget=10, cost=0.0)
    assert charges(place) == (0, None)
    meter.close()


def test_every_commit_is_on_the_disk_before_the_answer(meter):
    with meter._database.transaction() as connection:
        if connection.dialect.name == "sqlite":
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        else:
            assert [
                connection.exec_driver_sql(f"SHOW {name}").scalar() for name in ("synchronous_commit", "fsync")
            ] == [
                "on",
                "on",
            ]


def test_a_record_is_never_without_one_of_its_parts():
    columns = {name: [column.name for column in table.columns] for name, table in TABLES.tables.items()}
    assert columns == {
        "accounts": ["client", "queries", "cost", "seal"],
        "requests": ["client", "id", "digest", "queries", "cost", "answer", "seal"],
    }
    assert not [column for table in TABLES.tables.values() for column in table.columns if column.nullable]


def test_costs_are_exact(meter):
    for number in range(20):
        meter.charge(request(1, id=str(number)), b"answer", Terms(price=0.1))
    assert meter.usage("eve", Terms()).cost == 2.0  # as floats 2.0000000000000004
    meter.charge(request(3, id="more"), b"answer", Terms(price=1e-7))
    assert meter.usage("eve", Terms()).cost == 2.0000003
    meter.charge(request(2**40, id="many"), b"answer", Terms(price=HIGHEST_PRICE))
    assert meter.usage("eve", Terms()).cost == 2.0**40 * 1e12 + 2


def test_terms_out_of_range_are_refused():
    for budget in (0, -1, HIGHEST + 1, 1.0, True, "5"):
        with pytest.raises(
            InputError, match="^budget is .*: expected a whole number from 1 to 9,223,372,036,854,775,807$"
        ):
            Terms(budget=budget)
    for price in (-1e-9, HIGHEST_PRICE + 1, 1e308, float("inf"), float("nan"), "1", True):
        with pytest.raises(InputError, match="^price is .*: expected a finite number from 0 to 1,000,000,000,000$"):
            Terms(price=price)
    assert Terms(budget=HIGHEST, price=HIGHEST_PRICE) == Terms(budget=2**63 - 1, price=10**12)
    assert vars(Terms()) == {"budget": None, "price": 0.0}
    assert Terms(price=np.float32(0.5)) == Terms(price=0.5) and type(Terms(price=1).price) is float


@pytest.mark.parametrize("name", [None, 1, "", [], b"eve", "\ud800"])
def test_what_is_no_name_is_refused(meter, name):
    for kind, ask in (
        ("client", lambda: request(1, client=name)),
        ("client", lambda: meter.usage(name, LIMIT)),
        ("request", lambda: request(1, id=name)),
    ):
        with pytest.raises(InputError, match=f"^{kind} is .*: expected a non-empty name$"):
            ask()


def test_a_database_keeps_everything_between_two_meters(place):
    first = Meter(place)
    first.charge(request(4), b"answer", LIMIT)
    first.close()
    second = Meter(place)
    assert second.check(request(4), LIMIT) == b"answer"
    usage = second.usage("eve", LIMIT)
    assert (usage.queries, usage.budget, usage.remaining, usage.cost) == (4, 10, 6, 2.0)


# -- files -------------------------------------------------------------------


def test_files_that_are_no_meters_are_refused_and_stay_as_they_are(tmp_path):
    texts = {"short": b"a note", "page": b"x" * 4_096, "long": b"no database, but long enough for one\n" * 400}
    for name, content in texts.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: it is not a database: name one, or a new file$"):
            Meter(tmp_path / name)
        assert (tmp_path / name).read_bytes() == content
    for place in (tmp_path, tmp_path / "missing" / "meter.db"):
        with pytest.raises(InputError, match=f"^meter {place}: it cannot be opened: name a file in a folder"):
            Meter(place)


@pytest.mark.parametrize("table", ["notes", "accounts", "header"])
def test_another_programs_database_is_refused_and_stays_as_it_is(tmp_path, table):
    """Also one that has one of the meter's two tables."""
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute(f"CREATE TABLE {table} (text)")
    connection.execute(f"INSERT INTO {table} VALUES ('mine')")
    connection.commit()
    connection.close()
    content = path.read_bytes()
    with pytest.raises(InputError, match=r"^meter [^\n]*other.db: it holds other tables: name another file$"):
        Meter(path)
    assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["other.db"]


@pytest.mark.parametrize("name", ["a b'c\"d", "50%20", "who?what=1", "a#b", ":memory:", "Löwe\n", "file:x", "\udcff"])
def test_a_path_is_taken_as_it_is(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for number, path in enumerate((tmp_path / name, Path(name))):
        meter = Meter(path)
        meter.charge(request(1, id=str(number)), b"answer", LIMIT)
        meter.close()
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert charges(path.absolute()) == (2, 2)


def test_a_database_that_another_process_holds_is_told_of(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "WAIT", 0.1)
    meter = Meter(tmp_path / "meter.db")
    other = sqlite3.connect(tmp_path / "meter.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(InputError, match="meter.db: another process is using it: wait for that"):
        meter.charge(request(4), b"answer", LIMIT)
    other.execute("ROLLBACK")
    assert meter.charge(request(4), b"answer", LIMIT) == b"answer"


def test_a_full_disk_charges_nothing(tmp_path):
    meter = Meter(tmp_path / "meter.db")
    with meter._database.transaction() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(InputError, match="meter.db: no space is left on its disk: free up some, and try again$"):
        meter.charge(request(4), b"a" * 100_000, LIMIT)
    assert meter.usage("eve", LIMIT).queries == 0
    assert meter.charge(request(4), b"answer", LIMIT) == b"answer"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("requests SET answer", b"answes"),
        ("requests SET answer", "answer"),  # text where bytes were
        ("requests SET seal", b"s" * 16),
        ("accounts SET queries", 3),
        ("accounts SET queries", "four"),
        ("accounts SET cost", "1.0"),
        ("accounts SET cost", "no number"),
    ],
)
def test_a_record_that_was_changed_is_never_served(place, column, value):
    if isinstance(place, str) and value in ("answer", "four"):
        pytest.skip("PostgreSQL's columns hold one type")
    meter = Meter(place)
    meter.charge(request(4), b"answer", LIMIT)
    execute(place, f"UPDATE {column} = :value", value=value)
    what = "the record of client 'eve'" + (" and id 'a'" if column.startswith("requests") else "")
    for ask in (lambda: meter.check(request(4), LIMIT), lambda: meter.charge(request(4), b"answer", LIMIT)):
        with pytest.raises(InputError, match=f"^meter [^\n]*: {what} is damaged: restore it from a backup$"):
            ask()
    if column.startswith("requests"):
        with pytest.raises(InputError, match="the record of id 'a' is damaged: restore it from a backup$"):
            meter.answers("eve")
    meter.close()


def test_answers_are_read_again_in_the_order_of_their_ids(place):
    meter = Meter(place)
    for number in (3, 1, 2, 5, 4):
        meter.charge(request(1, id=f"id {number}"), f"answer {number}".encode(), LIMIT)
        meter.charge(request(1, id=f"id {number}", client="bob"), b"of bob", LIMIT)
    assert meter.answers("eve", most=2) == [("id 1", b"answer 1"), ("id 2", b"answer 2")]
    assert [name for name, _ in meter.answers("eve", after="id 2")] == ["id 3", "id 4", "id 5"]
    assert meter.answers("eve", after="id 5") == meter.answers("nobody") == []
    meter.close()


def test_a_password_is_in_no_message():
    with pytest.raises(
        InputError, match=r"^meter postgresql\+psycopg://eve:\*\*\*@127.0.0.1:9/meter: [^\n]*$"
    ) as caught:
        Meter("postgresql+psycopg://eve:open-sesame@127.0.0.1:9/meter")
    assert "sesame" not in str(caught.value) and str(caught.value).endswith(": check that it is running and writable")


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> tuple[bytes, list]:
    """A meter's file after three requests at each of two granularities, and what was answered."""
    path = tmp_path_factory.mktemp("served") / "meter.db"
    meter = Meter(path)
    answered = [ask(meter, text, number) for text in ("full", "label") for number in range(3)]
    meter.close()
    return path.read_bytes(), answered


def ask(meter: Meter, text: str, number: int) -> list:
    api = PredictionAPI(linear_victim(), answers=text, meter=meter)
    answers = api.query(noise(3, seed=number), client="eve", request=f"{text} {number}")
    return [answers.labels.tolist(), None if answers.probabilities is None else answers.probabilities.tolist()]


@settings(max_examples=60)
@given(place=st.integers(0, 2**20), bit=st.integers(0, 7))
def test_a_flipped_bit_never_changes_an_answer(tmp_path_factory, served, place, bit):
    """Bits are flipped where something is written: most of a database's pages is empty."""
    content, answered = bytearray(served[0]), served[1]
    written = [number for number, byte in enumerate(content) if byte]
    content[written[place % len(written)]] ^= 1 << bit
    path = tmp_path_factory.mktemp("flip") / "meter.db"
    path.write_bytes(content)
    try:
        meter = Meter(path)
    except InputError as error:
        assert "\n" not in str(error) and str(path) in str(error)
        return
    again = iter(answered)
    for text in ("full", "label"):
        for number in range(3):
            expected = next(again)
            try:
                assert ask(meter, text, number) == expected
            except InputError as error:
                assert "\n" not in str(error)
    meter.close()


# -- at once -----------------------------------------------------------------


@pytest.mark.parametrize(("each", "charged"), [(10, 640), (11, 640)])
def test_64_threads_never_overspend_and_are_never_refused_early(meter, each, charged):
    api = PredictionAPI(linear_victim(2), budget=640, meter=meter)
    start = threading.Barrier(64, timeout=60)
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
    start = threading.Barrier(64, timeout=60)
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
def test_processes_share_one_database(place, each, refused):
    """Four processes against a budget of 320; each exits with the number of its refused queries."""
    victim, image = linear_victim(2), noise(1)

    def ask() -> int:
        api = PredictionAPI(victim, budget=320, meter=Meter(place))
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
    assert charges(place) == (320, 320)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("a b://c", "^the meter's address cannot be read: use postgresql"),
        ("nothing://a", "^meter nothing://a: .*nothing: run pip install 'psycopg\\[binary\\]', and use postgresql"),
        ("postgresql+pg8000://a/b", "^meter postgresql.*: No module named 'pg8000': run pip install"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_in_words(address, words):
    with pytest.raises(InputError, match=words) as caught:
        Meter(address)
    assert "\n" not in str(caught.value)
