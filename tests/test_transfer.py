"""Transfer files: what goes in comes out, what is torn is cut off, what is edited is refused."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from extractlib.api.service import Answers, Granularity
from extractlib.attacks.transfer import Header, TransferFile, load
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


def write(path, header: Header, *, frames: int | None = None) -> None:
    """Append frames, from where the file ends, up to `frames` in all."""
    indices, answers = torch.arange(header.budget) * 3, answers_for(header)
    with TransferFile(path, header) as file:
        while file.records < header.budget and file.frames != frames:
            rows = slice(file.records, file.records + header.chunk)
            file.append(indices[rows], answers[rows])


@pytest.mark.parametrize("text", ["full", "label", "top-3", "rounded-2", "rounded-6", "temperature-2.0"])
def test_what_was_written_is_read(tmp_path, text):
    header = replace(HEADER, granularity=text)
    write(tmp_path / "t.bin", header)
    transfer, answers = load(tmp_path / "t.bin"), answers_for(header)
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


def test_the_label_survives_probabilities_that_tie_in_half_precision(tmp_path):
    header = replace(HEADER, classes=2, budget=1, pool_size=1)
    answers = Granularity.parse("full").apply(torch.tensor([[0.0, 1e-5]]))
    with TransferFile(tmp_path / "t.bin", header) as file:
        file.append(torch.tensor([0]), answers)
    read = load(tmp_path / "t.bin").answers
    assert read.probabilities.tolist() == [[0.5, 0.5]]
    assert read.labels.tolist() == [1]


@pytest.mark.parametrize(("text", "record"), [("full", 26), ("label", 6), ("top-5", 26), ("rounded-2", 16)])
def test_size_is_header_records_and_seals(tmp_path, text, record):
    """Index 4 bytes, label 2, class 2, probability 2 (rounded to 2 decimals: 1); a seal of 8 for each 256 records."""
    header = replace(HEADER, granularity=text, budget=5_000, chunk=256)
    write(tmp_path / "t.bin", header)
    size = (tmp_path / "t.bin").stat().st_size
    assert size == len(header.line) + 5_000 * record + 20 * 8
    assert size <= 200_000


def test_first_is_the_beginning(tmp_path):
    write(tmp_path / "t.bin", HEADER)
    whole = load(tmp_path / "t.bin")
    part = whole.first(3)
    assert part.indices.tolist() == [0, 3, 6]
    assert torch.equal(part.answers.probabilities, whole.answers.probabilities[:3])
    assert len(whole.first(10)) == len(whole) == 10
    with pytest.raises(InputError, match="^budget is 11: the transfer set holds 10 records$"):
        whole.first(11)
    for count in (0, -1, True, 1.5):
        with pytest.raises(InputError, match=f"^budget is {count}: a whole number from 1 is wanted$"):
            whole.first(count)


def test_cut_anywhere_it_resumes_to_the_same_bytes(tmp_path):
    """Every length from an empty file to the whole one."""
    write(tmp_path / "whole.bin", HEADER)
    whole = (tmp_path / "whole.bin").read_bytes()
    path = tmp_path / "cut.bin"
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        records = sum(length >= end for end in frame_ends(HEADER))
        if length >= len(HEADER.line):
            assert len(load(path, partial=True)) == min(10, records * 4)
        write(path, HEADER)
        assert path.read_bytes() == whole


def frame_ends(header: Header) -> list[int]:
    ends, position = [], len(header.line)
    for records in (4, 4, 2):
        position += records * header.record.itemsize + 8
        ends.append(position)
    return ends


@settings(deadline=None)
@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_one_flipped_bit_is_refused(tmp_path_factory, place, bit):
    folder = tmp_path_factory.mktemp("flip")
    write(folder / "t.bin", HEADER)
    data = bytearray((folder / "t.bin").read_bytes())
    data[place % len(data)] ^= 1 << bit
    (folder / "t.bin").write_bytes(data)
    for read in (lambda: load(folder / "t.bin"), lambda: TransferFile(folder / "t.bin", HEADER)):
        with pytest.raises(InputError) as caught:
            read()
        assert "\n" not in str(caught.value)


def test_errors_name_the_frame_and_the_count(tmp_path):
    path = tmp_path / "t.bin"
    write(path, HEADER)
    whole = path.read_bytes()
    first, second, _ = frame_ends(HEADER)
    path.write_bytes(whole[:second])
    with pytest.raises(InputError, match="holds 8 of 10 records: collect again to resume it$"):
        load(path)
    for refuse in (load, lambda path: TransferFile(path, HEADER)):
        path.write_bytes(whole[:first] + bytes([whole[first] ^ 1]) + whole[first + 1 :])
        with pytest.raises(InputError, match="frame 1 was edited or damaged: collect into a new file$"):
            refuse(path)
        # Frames in another order fit their seals no more.
        path.write_bytes(whole[: len(HEADER.line)] + whole[first:second] + whole[len(HEADER.line) : first])
        with pytest.raises(InputError, match="frame 0 was edited"):
            refuse(path)
        path.write_bytes(whole + b"more")
        with pytest.raises(InputError, match="4 bytes follow its last record"):
            refuse(path)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("pool", "q" * 40, "another pool, 'pppp"),
        ("pool_size", 7_000, "another pool size, 6000 and not 7000"),
        ("api", "b" * 40, "another api, 'aaaa"),
        ("granularity", "label", "another granularity, 'full' and not 'label'"),
        ("classes", 11, "another classes, 10 and not 11"),
        ("seed", 1, "another seed, 0 and not 1"),
        ("budget", 12, "another budget, 10 and not 12"),
        ("chunk", 5, "another chunk, 4 and not 5"),
    ],
)
def test_another_header_is_refused_by_name_and_the_file_left_alone(tmp_path, field, value, words):
    path = tmp_path / "t.bin"
    write(path, HEADER, frames=2)
    before = path.read_bytes()
    with pytest.raises(InputError) as caught:
        TransferFile(path, replace(HEADER, **{field: value}))
    assert words in str(caught.value) and str(path) in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"\x80\x04pickle", b"[]\n", b"{}\n", b'{"pool": 1}\n', HEADER.line.replace(b"10,", b"-1,")]
    + [HEADER.line.replace(b'"version": 2', b'"version": 1'), HEADER.line.replace(b"full", b"fill"), HEADER.line[:20]],
)
def test_what_is_no_transfer_file_is_refused(tmp_path, content):
    (tmp_path / "t.bin").write_bytes(content)
    with pytest.raises(InputError, match="is no transfer file of version 2, or its header was edited$"):
        load(tmp_path / "t.bin")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"missing.bin cannot be read \(No such file or directory\)"):
        load(tmp_path / "missing.bin")


def test_a_frame_takes_its_number_of_records_only(tmp_path):
    answers = answers_for(HEADER)
    with TransferFile(tmp_path / "t.bin", HEADER) as file:
        with pytest.raises(InputError, match="^3 indices and 4 answers: frame 0 takes 4$"):
            file.append(torch.arange(3), answers[:4])
    write(tmp_path / "t.bin", HEADER)
    with TransferFile(tmp_path / "t.bin", HEADER) as file:
        with pytest.raises(InputError, match="frame 3 takes 0$"):
            file.append(torch.arange(0), answers[:0])


def test_two_writers_at_once_are_refused(tmp_path):
    with TransferFile(tmp_path / "t.bin", HEADER):
        with pytest.raises(InputError, match="is being written by another process: wait, or name another file$"):
            TransferFile(tmp_path / "t.bin", HEADER)
    write(tmp_path / "t.bin", HEADER)
    assert len(load(tmp_path / "t.bin")) == 10


def test_headers_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="^budget is 7000 and the pool holds 6000 images"):
        replace(HEADER, budget=7_000)
    with pytest.raises(InputError, match="^chunk is 0: a whole number from 1 is wanted$"):
        replace(HEADER, chunk=0)
