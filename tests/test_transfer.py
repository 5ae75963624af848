"""Transfer sets: what goes in comes out, what was cut off goes on, what is edited or foreign is refused."""

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import content

from extractlib.api.granularity import Answers, Granularity
from extractlib.attacks.transfer import TABLES, Header, TransferFile, TransferSet, load
from extractlib.errors import InputError

HEADER = Header(
    pool="p" * 40,
    pool_size=6_000,
    api="a" * 40,
    granularity="full",
    classes=10,
    strategy="random",
    seed=0,
    budget=10,
    chunk=4,
)


def answers_for(header: Header) -> Answers:
    logits = torch.randn(header.budget, header.classes, generator=torch.Generator().manual_seed(3)) * 4
    return Granularity.parse(header.granularity).apply(logits)


def write(path: Path | None, header: Header, *, chunks: int | None = None) -> TransferSet:
    """Append chunks, from where the file ends, up to `chunks` in all."""
    indices, answers = torch.arange(header.budget) * 3, answers_for(header)
    with TransferFile(path, header) as file:
        while file.records < header.budget and file.chunks != chunks:
            rows = slice(file.records, file.records + header.chunk)
            file.append(indices[rows], answers[rows])
        return file.transfer


def edit(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


def same(first: TransferSet, second: TransferSet) -> bool:
    """Say whether two sets hold the same."""
    pairs = [(first.indices, second.indices)]
    pairs += zip(vars(first.answers).values(), vars(second.answers).values(), strict=True)
    alike = (before is after is None or torch.equal(before, after) for before, after in pairs)
    return first.header == second.header and all(alike)


# -- what goes in comes out --------------------------------------------------


@pytest.mark.parametrize("text", ["full", "label", "top-3", "rounded-2", "rounded-6", "temperature-2.0"])
def test_what_was_written_is_read(tmp_path, text):
    header = replace(HEADER, granularity=text)
    written = write(tmp_path / "t.db", header)
    transfer, answers = load(tmp_path / "t.db"), answers_for(header)
    assert same(transfer, written) and same(write(None, header), written)
    assert transfer.header == header
    assert transfer.indices.tolist() == list(range(0, 30, 3))
    assert torch.equal(transfer.answers.labels, answers.labels)
    if text == "top-3":
        assert torch.equal(transfer.answers.classes, answers.classes)
    if text.startswith("rounded"):
        assert torch.equal(transfer.answers.probabilities, answers.probabilities)
    elif text != "label":
        assert torch.equal(transfer.answers.probabilities, answers.probabilities.half().float())
    torch.testing.assert_close(transfer.answers.targets(10), answers.targets(10), rtol=0, atol=1e-3)


def test_append_returns_the_answers_as_they_are_stored(tmp_path):
    answers = answers_for(HEADER)
    with TransferFile(tmp_path / "t.db", HEADER) as file:
        stored = file.append(torch.arange(4), answers[:4])
        assert torch.equal(stored.probabilities, answers.probabilities[:4].half().float())
        assert torch.equal(stored.labels, answers.labels[:4])
        assert (file.chunks, file.records, len(file.transfer)) == (1, 4, 4)
    assert torch.equal(load(tmp_path / "t.db", partial=True).answers.probabilities, stored.probabilities)


def test_the_label_survives_probabilities_that_tie_in_half_precision(tmp_path):
    header = replace(HEADER, classes=2, budget=1, pool_size=1)
    answers = Granularity.parse("full").apply(torch.tensor([[0.0, 1e-5]]))
    with TransferFile(tmp_path / "t.db", header) as file:
        file.append(torch.tensor([0]), answers)
    read = load(tmp_path / "t.db").answers
    assert read.probabilities.tolist() == [[0.5, 0.5]]
    assert read.labels.tolist() == [1]


@pytest.mark.parametrize(("text", "record"), [("full", 26), ("label", 6), ("top-5", 26), ("rounded-2", 16)])
def test_a_set_is_a_single_file_little_larger_than_its_records(tmp_path, text, record):
    """Index 4 bytes, label 2, class 2, probability 2 (rounded to 2 decimals: 1)."""
    header = replace(HEADER, granularity=text, budget=5_000, chunk=256)
    write(tmp_path / "t.db", header)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".t.db.lock", "t.db"]
    assert header.record.itemsize == record
    size = (tmp_path / "t.db").stat().st_size
    assert 5_000 * record < size <= 1.5 * 5_000 * record + 16_384
    assert size <= 200_000


def test_first_is_the_beginning(tmp_path):
    write(tmp_path / "t.db", HEADER)
    whole = load(tmp_path / "t.db")
    part = whole.first(3)
    assert part.indices.tolist() == [0, 3, 6]
    assert torch.equal(part.answers.probabilities, whole.answers.probabilities[:3])
    assert len(whole.first(10)) == len(whole) == 10
    with pytest.raises(InputError, match="^budget is 11: the transfer set holds 10 records$"):
        whole.first(11)
    for count in (0, -1, True, 1.5):
        with pytest.raises(InputError, match=f"^budget is {count}: expected a whole number of at least 1$"):
            whole.first(count)


def test_a_chunk_takes_its_number_of_records_only(tmp_path):
    answers = answers_for(HEADER)
    with TransferFile(tmp_path / "t.db", HEADER) as file:
        for indices, rows in ((3, 4), (4, 3), (5, 5), (0, 0)):
            with pytest.raises(InputError, match=f"^{indices} indices and {rows} answers: chunk 0 takes 4$"):
                file.append(torch.arange(indices), answers[:rows])
        assert file.chunks == 0
    write(tmp_path / "t.db", HEADER)
    with TransferFile(tmp_path / "t.db", HEADER) as file:
        with pytest.raises(InputError, match="chunk 3 takes 0$"):
            file.append(torch.arange(0), answers[:0])


# -- cut off, edited, damaged ------------------------------------------------


def test_cut_anywhere_it_resumes_to_the_same(tmp_path):
    """After every number of chunks."""
    write(tmp_path / "whole.db", HEADER)
    for chunks in range(4):
        path = tmp_path / f"{chunks}.db"
        write(path, HEADER, chunks=chunks)
        part = load(path, partial=True)
        assert (len(part), part.indices.tolist()) == (min(10, 4 * chunks), list(range(0, 30, 3))[: 4 * chunks])
        if chunks < 3:
            with pytest.raises(InputError, match=f"holds {4 * chunks} of 10 records: collect again to resume it$"):
                load(path)
        write(path, HEADER)
        assert content(path) == content(tmp_path / "whole.db")


def test_a_file_of_which_nothing_was_written_yet_is_taken(tmp_path):
    """As a process leaves it that is killed after opening it."""
    (tmp_path / "t.db").touch()
    assert len(write(tmp_path / "t.db", HEADER)) == len(load(tmp_path / "t.db")) == 10


@settings(max_examples=60)
@given(place=st.integers(0, 2**20), bit=st.integers(0, 7), text=st.sampled_from(["full", "label"]))
def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path_factory, place, bit, text):
    """Bits are flipped where something is written: most of a database's pages is empty."""
    folder, header = tmp_path_factory.mktemp("flip"), replace(HEADER, granularity=text)
    path = folder / "t.db"
    whole = write(path, header)
    data = bytearray(path.read_bytes())
    written = [number for number, byte in enumerate(data) if byte]
    data[written[place % len(written)]] ^= 1 << bit
    for read in (load, lambda path: write(path, header, chunks=3)):
        path.write_bytes(data)
        try:
            assert same(read(path), whole)
        except InputError as error:
            assert "\n" not in str(error) and str(path) in str(error)


EDITS = {
    "another answer": ("UPDATE chunks SET records = zeroblob(length(records)) WHERE number = 1", 1),
    "shorter": ("UPDATE chunks SET records = substr(records, 2) WHERE number = 1", 1),
    "another seal": ("UPDATE chunks SET seal = zeroblob(16) WHERE number = 1", 1),
    "no seal": ("UPDATE chunks SET seal = x'' WHERE number = 1", 1),
    "text for bytes": ("UPDATE chunks SET records = 'text' WHERE number = 0", 0),
    "one left out": ("DELETE FROM chunks WHERE number = 0", 0),
    "in another order": ("UPDATE chunks SET number = CASE number WHEN 0 THEN 9 WHEN 1 THEN 0 ELSE number END", 0),
    "one again": ("INSERT INTO chunks SELECT 3, records, seal FROM chunks WHERE number = 2", 3),
    "an empty one more": ("INSERT INTO chunks VALUES (3, x'', x'')", 3),
}


@pytest.mark.parametrize("change", EDITS)
def test_an_edited_chunk_is_refused_by_its_number(tmp_path, change):
    statement, number = EDITS[change]
    path = tmp_path / "t.db"
    write(path, HEADER)
    edit(path, statement)
    for read in (load, lambda path: load(path, partial=True), lambda path: TransferFile(path, HEADER)):
        with pytest.raises(InputError, match=f"t.db: chunk {number} was edited or damaged: collect into a new file$"):
            read(path)


def test_records_that_became_text_are_refused(tmp_path):
    """One bit of a database makes text of bytes; its seal still fits."""
    path = tmp_path / "t.db"
    write(path, replace(HEADER, granularity="label"))
    edit(path, "UPDATE chunks SET records = CAST(records AS TEXT) WHERE number = 2")
    with pytest.raises(InputError, match="t.db: chunk 2 was edited or damaged: collect into a new file$"):
        load(path)


def test_a_chunk_of_another_set_is_refused(tmp_path):
    """The seal is over the header too: records cannot move between sets."""
    write(tmp_path / "one.db", HEADER)
    write(tmp_path / "two.db", replace(HEADER, seed=1))
    rows = content(tmp_path / "one.db")[1:]
    edit(tmp_path / "two.db", "UPDATE chunks SET records = ?, seal = ? WHERE number = 0", *rows[0][1:])
    with pytest.raises(InputError, match="two.db: chunk 0 was edited or damaged"):
        load(tmp_path / "two.db")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("pool", "q" * 40, "another pool, 'pppp"),
        ("pool_size", 7_000, "another pool size, 6000 instead of 7000"),
        ("api", "b" * 40, "another api, 'aaaa"),
        ("granularity", "label", "another granularity, 'full' instead of 'label'"),
        ("classes", 11, "another classes, 10 instead of 11"),
        ("strategy", "adaptive-all", "another strategy, 'random' instead of 'adaptive-all'"),
        ("seed", 1, "another seed, 0 instead of 1"),
        ("budget", 12, "another budget, 10 instead of 12: give budget=10, or name another file"),
        ("chunk", 5, "another batch, 4 instead of 5: give batch=4, or name another file"),
    ],
)
def test_another_header_is_refused_by_name_and_the_file_left_alone(tmp_path, field, value, words):
    path = tmp_path / "t.db"
    write(path, HEADER, chunks=2)
    before = path.read_bytes()
    with pytest.raises(InputError) as caught:
        TransferFile(path, replace(HEADER, **{field: value}))
    assert words in str(caught.value) and str(path) in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "line",
    ["", "\n", "[]", "null", "7", "{}", '{"pool": 1}', "[" * 100_000, b"\xff", 5, 0.5]
    + [HEADER.line.replace(*pair) for pair in (("10,", "-1,"), ('"version": 3', '"version": 2'), ("full", "fill"))]
    + [HEADER.line[:20], HEADER.line.replace("10,", "true,"), HEADER.line.replace("10,", "10.0,")],
)
def test_a_header_that_is_none_is_refused(tmp_path, line):
    write(tmp_path / "t.db", HEADER)
    edit(tmp_path / "t.db", "UPDATE header SET line = ?", line)
    for read in (load, lambda path: TransferFile(path, HEADER)):
        with pytest.raises(InputError, match="t.db is not a transfer set of version 3, or its header was edited$"):
            read(tmp_path / "t.db")


def test_two_headers_or_an_edited_one_are_refused(tmp_path):
    write(tmp_path / "t.db", HEADER)
    edit(tmp_path / "t.db", "UPDATE header SET line = ?", json.dumps(json.loads(HEADER.line), indent=1))
    with pytest.raises(InputError, match="t.db has a header that was edited: name another file$"):
        TransferFile(tmp_path / "t.db", HEADER)
    edit(tmp_path / "t.db", "INSERT INTO header VALUES (?)", HEADER.line)
    for read in (load, lambda path: TransferFile(path, HEADER)):
        with pytest.raises(InputError, match="t.db (is not a transfer set of version 3|has a header that was edited)"):
            read(tmp_path / "t.db")


# -- other files -------------------------------------------------------------


@pytest.mark.parametrize("data", [b"a note", b"\n", b"x" * 100, b"y" * 4_096, b"SQLite format 3\0 and no more"])
def test_a_file_that_is_no_database_is_refused_and_keeps_its_bytes(tmp_path, data):
    path = tmp_path / "notes.txt"
    path.write_bytes(data)
    for read in (load, lambda path: TransferFile(path, HEADER)):
        with pytest.raises(InputError, match=r"^transfer set [^\n]*notes.txt: it is (not a database|damaged): "):
            read(path)
    assert path.read_bytes() == data


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
@pytest.mark.parametrize("table", ["notes", "header", "chunks"])
def test_another_programs_database_is_refused_and_keeps_its_bytes(tmp_path, table, journal):
    path = tmp_path / "other.db"
    edit(path, f"CREATE TABLE {table} (text)")
    edit(path, f"PRAGMA journal_mode = {journal}")
    edit(path, f"INSERT INTO {table} VALUES ('mine')")
    data = path.read_bytes()
    for read in (load, lambda path: TransferFile(path, HEADER)):
        with pytest.raises(
            InputError, match=r"^transfer set [^\n]*other.db: it holds other tables: name another file$"
        ):
            read(path)
    assert path.read_bytes() == data


def test_what_cannot_be_opened_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"missing.db cannot be read \(no such file\): name a transfer set$"):
        load(tmp_path / "missing.db")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"^folder [^\n]*file cannot be created \(File exists\): name another$"):
        TransferFile(tmp_path / "file" / "t.db", HEADER)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="folder: it cannot be opened: name a file in a folder that exists and is"):
        TransferFile(tmp_path / "folder", HEADER)
    with pytest.raises(InputError, match="file: it is empty: run what writes it, or name another file$"):
        load(tmp_path / "file")
    assert (tmp_path / "file").stat().st_size == 0  # reading writes nothing


def test_folders_are_made_and_paths_taken_as_they_are(tmp_path):
    path = tmp_path / "a b" / "who?" / "50%20#.db"
    write(path, HEADER)
    assert len(load(path)) == 10
    assert [file.name for file in path.parent.iterdir() if not file.name.startswith(".")] == ["50%20#.db"]


def test_a_set_is_read_where_nothing_can_be_written(tmp_path, monkeypatch):
    """SQLite is told so, as of a medium that cannot be written: file modes mean nothing to an administrator."""
    write(tmp_path / "t.db", HEADER, chunks=2)
    connect = sqlite3.dbapi2.connect

    def read_only(place, *arguments, **options):
        return connect(f"file:{place}?mode=ro&immutable=1", *arguments, uri=True, **options)

    monkeypatch.setattr(sqlite3.dbapi2, "connect", read_only)
    assert len(load(tmp_path / "t.db", partial=True)) == 8
    with pytest.raises(InputError, match="t.db: it cannot be written: name a writable file$"):
        write(tmp_path / "t.db", HEADER)


def test_two_writers_at_once_are_refused(tmp_path):
    with TransferFile(tmp_path / "t.db", HEADER):
        with pytest.raises(InputError, match="is being written by another process: wait, or name another file$"):
            TransferFile(tmp_path / "t.db", HEADER)
        assert len(load(tmp_path / "t.db", partial=True)) == 0  # readers may
    write(tmp_path / "t.db", HEADER)
    assert len(load(tmp_path / "t.db")) == 10


def test_a_refused_file_is_open_to_other_writers(tmp_path):
    write(tmp_path / "t.db", HEADER)
    with pytest.raises(InputError, match="another seed"):
        TransferFile(tmp_path / "t.db", replace(HEADER, seed=1))
    assert len(write(tmp_path / "t.db", HEADER)) == 10


def test_headers_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="^budget is 7000, but the pool holds 6000 images"):
        replace(HEADER, budget=7_000)
    with pytest.raises(InputError, match="^pool_size is 4294967297: expected a whole number from 1 to 4,294,967,296$"):
        replace(HEADER, pool_size=2**32 + 1)
    for name in ("pool_size", "classes", "budget", "chunk"):
        for value in (0, -1, True, 1.5):
            with pytest.raises(
                InputError, match=f"^{name} is {value}: expected a whole number (of at least 1|from 1 to .*)$"
            ):
                replace(HEADER, **{name: value})
    with pytest.raises(InputError, match="^granularity top-11: the victim has only 10 classes$"):
        replace(HEADER, granularity="top-11")


def test_a_chunk_is_never_without_one_of_its_parts():
    assert [column.name for column in TABLES.tables["chunks"].columns] == ["number", "records", "seal"]
    assert not [column for table in TABLES.tables.values() for column in table.columns if column.nullable]
