"""Freezes: what they hold, which rows count, and that nobody names a seed that decides before its freeze."""

import ast
import json
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from extractbook.cli import app
from extractbook.reproduction import editions
from extractbook.reproduction.editions import deciding
from extractlib.errors import InputError
from extractlib.versions import VERSIONS

ROOT = Path(__file__).parents[1]
LOOK = editions.looks("drawn")[0]


def test_seeds_of_the_looks():
    first, both = editions.looks("drawn")
    assert (len(first), len(both), both[0]) == (8, 16, first[0])
    assert [len(look) for look in editions.looks("photos")] == [5, 10]
    assert len(editions.controls()) == 60
    assert len(deciding()) == 76
    assert not deciding() & {0, 1, 2, 1000, 1009}


# -- no one names them early ------------------------------------------------------------


def named_seeds(source: str) -> set[int]:
    """Return the deciding seeds that Python code names: where a name with "seed" in it gets one, or a call with it."""

    def numbers(node: ast.AST) -> set[int]:
        found = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and type(part.value) is int}
        return found | {number - 1 for number in found}  # where a range ends

    def says(node: ast.AST | str | None) -> bool:
        if isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Constant):
            node = node.value
        text = node if isinstance(node, str) else ast.unparse(node) if node is not None else ""
        return "seed" in text.lower()

    def given(names: list, values: list) -> set[int]:
        pairs = zip(names, values, strict=True)
        return set().union(*(numbers(value) for name, value in pairs if value is not None and says(name)))

    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.keyword(arg=str(name), value=value):
                found |= given([name], [value])
            case ast.Assign(targets=[target], value=value) | ast.AnnAssign(target=target, value=value):
                found |= given([target], [value])
            case ast.For(target=target, iter=values) | ast.comprehension(target=target, iter=values):
                found |= given([target], [values])
            case ast.Compare(left=left, comparators=others):
                found |= given([left] * len(others), others)
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=arguments):
                found |= given([name] * len(arguments), arguments)
            case ast.arguments(args=plain, defaults=defaults, kwonlyargs=only, kw_defaults=others):
                found |= given(plain[len(plain) - len(defaults) :], defaults) | given(only, others)
            case ast.Dict(keys=keys, values=values):
                found |= given(keys, values)
            case ast.List(elts=parts) | ast.Tuple(elts=parts):  # of a command line
                words = [str(part.value) if isinstance(part, ast.Constant) else "" for part in parts]
                after = [word for option, word in zip(words, words[1:], strict=False) if says(option)]
                found |= {int(word) for word in after if word.isdigit()}
    return found & deciding()


FIRST, *_, LAST = sorted(deciding())


@pytest.mark.parametrize(
    "code",
    [
        f"run(seed={FIRST})",
        f"seeds = range({FIRST}, {FIRST + 8})",
        f"seeds = range({FIRST - 100}, {FIRST + 1})",
        f"def run(*, first_seed={LAST}): ...",
        f"for seed in [1, {LAST}]: ...",
        f"rows = [row for row in rows if row.seed == {LAST}]",
        f"torch.manual_seed({FIRST})",
        f"cell = {{'seed': {FIRST}}}",
        f"main(['--first-seed', '{FIRST}'])",
        f"SEEDS: tuple = ({FIRST},)",
        f"row['seed'] = {FIRST}",
    ],
)
def test_code_that_names_a_deciding_seed_is_found(code):
    assert named_seeds(code)


@pytest.mark.parametrize(
    "code",
    [
        f"run(budget={FIRST}, seed=0)",
        f"size = {FIRST}",
        f"text = 'seed {FIRST}'",
        "seeds = range(8)",
        f"a(seed=1).b({LAST})",
    ],
)
def test_other_numbers_are_no_seeds(code):
    assert not named_seeds(code)


def committed(*patterns: str) -> list[Path]:
    files = subprocess.run(
        ["git", "-C", ROOT, "ls-files", *patterns], capture_output=True, text=True, check=True
    ).stdout
    return [ROOT / file for file in files.split("\n") if file]


def code_of(path: Path) -> str:
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    lines = [line for cell in cells for line in "".join(cell["source"]).split("\n")]
    return "\n".join("" if line.startswith(("%", "!")) else line for line in lines)


frozen = pytest.mark.skipif(bool(editions.frozen("drawn")), reason="the seeds are open since the freeze")


@frozen
def test_no_line_of_code_names_a_deciding_seed():
    sources = committed("*.py", "*.ipynb")
    assert len(sources) > 100
    assert {str(path.relative_to(ROOT)): seeds for path in sources if (seeds := named_seeds(code_of(path)))} == {}


@frozen
def test_no_setting_and_no_command_names_a_deciding_seed():
    named = re.compile(r"seed[\w-]*[\"']?\s*[=: ]\s*\[?\s*(\d+)")
    texts = committed("*.toml", "*.yml", "*.yaml", "Makefile", "*.sh", ".ci/*", "*.md")
    own = ("claims.toml", "EDITIONS.toml")
    found = {path.name: set(map(int, named.findall(code_of(path)))) & deciding() for path in texts}
    assert {name for name, seeds in found.items() if seeds and name not in own} == set()


@frozen
def test_no_row_is_of_a_deciding_seed():
    paths = committed("book/extractbook/results/edition-2/*/*.jsonl")
    rows = [json.loads(line) for path in paths for line in open(path)]
    assert {row["cell"]["seed"] for row in rows} & deciding() == set()


def test_photographs_of_a_task_and_seed_are_all_from_one_kind_of_processor():
    # Elsewhere, a victim that is trained again ends like one of another seed, and pairs with its copies no more.
    paths = committed("book/extractbook/results/edition-2/photos/*.jsonl")
    rows = [json.loads(line) for path in paths for line in open(path)]
    kinds = {(row["cell"]["task"], row["cell"]["seed"], row["provenance"]["processor"]) for row in rows}
    assert len(kinds) == len({kind[:2] for kind in kinds}) > 0


def test_results_refuse_deciding_seeds_before_the_freeze(tmp_path, monkeypatch):
    monkeypatch.setattr(editions, "FILE", tmp_path / "EDITIONS.toml")
    editions.FILE.write_text("")
    editions.check_seeds("drawn", [0, 1000])
    message = (
        f"seed {FIRST} decides claims, and the freeze 'drawn' is not in EDITIONS.toml: explore on seeds 1000 to 1009"
    )
    for scale in ("drawn", "smoke"):
        with pytest.raises(InputError, match=message):
            editions.check_seeds(scale, [0, FIRST])
    editions.FILE.write_text("[drawn]\n")
    editions.check_seeds("drawn", [FIRST])
    with pytest.raises(InputError, match="the freeze 'photos' is not in"):
        editions.check_seeds("photos-gpu", [FIRST])


def test_the_command_refuses_a_deciding_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(editions, "FILE", tmp_path / "EDITIONS.toml")
    editions.FILE.write_text("")
    command = ["run", "reproduction", "--scale", "smoke", "--device", "cpu", "--first-seed", str(FIRST)]
    outcome = CliRunner().invoke(app, command)
    assert isinstance(outcome.exception, InputError)
    assert str(outcome.exception).startswith(f"seed {FIRST} decides claims")


# -- freezes -------------------------------------------------------------------------------


def canaries(train: int = VERSIONS["train"], value: int = 1, **others: int) -> str:
    """Return a file of canaries: of training, and others of the key ``decode``."""
    made = {"fit": {"versions": {"train": train}, "values": value}}
    made |= {name: {"versions": {"decode": VERSIONS["decode"]}, "values": one} for name, one in others.items()}
    return json.dumps({"canaries": made})


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Return the folder of a clean repository that holds what is frozen."""
    folder = tmp_path / "a" / "b" / "c"
    for file in {*editions.FROZEN["drawn"], *editions.FROZEN["photos"]}:
        path = (folder / file).resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file)
    (folder / editions.TABLES).write_text("[control]\n[budget]\n")
    (folder / editions.CANARIES).write_text(canaries())
    (folder / "EDITIONS.toml").write_text("# freezes\n")
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setattr(editions, "FOLDER", folder)
    monkeypatch.setattr(editions, "FILE", folder / "EDITIONS.toml")

    def commit() -> str:
        subprocess.run([*git, "commit", "-qam", "more"], check=True)
        return subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()

    return SimpleNamespace(folder=folder, commit=commit)


def test_a_freeze_is_entered_once_from_a_clean_checkout(checkout):
    (checkout.folder / "claims.py").write_text("changed")
    with pytest.raises(InputError, match="files differ from the commit to freeze: commit them first"):
        editions.freeze("drawn")
    commit = checkout.commit()
    entry = editions.freeze("drawn")
    assert entry["commit"] == commit
    assert entry["versions"] == dict(VERSIONS)
    entries = {f"{editions.TABLES}: control", f"{editions.TABLES}: budget", f"{editions.CANARIES}: fit"}
    whole = {*editions.TESTS, "scales/drawn.toml", "grids/drawn.toml", "grids/cut.toml"}
    assert set(entry["digests"]) == whole | entries
    assert editions.FILE.read_text().startswith("# freezes\n")
    checkout.commit()
    with pytest.raises(InputError, match="the freeze 'drawn' is already in EDITIONS.toml: enter a deviation instead"):
        editions.freeze("drawn")
    with pytest.raises(InputError, match="unknown freeze 'paper'"):
        editions.freeze("paper")


def test_photographs_are_frozen_with_the_very_tests_of_the_drawn(checkout):
    editions.freeze("drawn")
    (checkout.folder / "paper/claims.toml").write_text("weaker")
    checkout.commit()
    with pytest.raises(InputError, match="paper/claims.toml differs from the freeze 'drawn': restore it"):
        editions.freeze("photos")
    (checkout.folder / "paper/claims.toml").write_text("paper/claims.toml")
    checkout.commit()
    frozen = editions.freeze("photos")["digests"]
    assert "scales/photos.toml" in frozen
    assert "scales/drawn.toml" not in frozen


def test_a_deviation_from_the_drawn_tests_is_frozen_with_the_photographs(checkout):
    editions.freeze("drawn")
    (checkout.folder / "claims.py").write_text("mended")
    deviate("claims.py", json.dumps(editions.digest(b"mended")))
    checkout.commit()
    assert editions.freeze("photos")["digests"]["claims.py"] == editions.digest(b"mended")
    assert editions.changed_files("drawn") == editions.changed_files("photos") == []


def deviate(what: str, now: str) -> None:
    with open(editions.FILE, "a") as file:
        file.write(
            f'\n[[deviations]]\nfreeze = "drawn"\ndate = 2026-12-24\nreason = "r"\nwhat = "{what}"\nnow = {now}\n'
        )


def test_a_frozen_file_that_changes_is_named_unless_a_deviation_says_so(checkout):
    assert editions.changed_files("drawn") == []
    editions.freeze("drawn")
    assert editions.changed_files("drawn") == []
    (checkout.folder / "scales/drawn.toml").write_text("budget = 1")
    assert editions.changed_files("drawn") == ["scales/drawn.toml"]
    deviate("scales/drawn.toml", json.dumps(editions.digest(b"budget = 1")))
    assert editions.changed_files("drawn") == []
    assert [entry["reason"] for entry in editions.deviations("drawn")] == ["r"]
    assert editions.deviations("photos") == []


def test_a_table_or_a_canary_that_joins_the_frozen_ones_changes_none_of_them(checkout):
    editions.freeze("drawn")
    (checkout.folder / editions.TABLES).write_text("[chain]\n[budget]\n[control]\n")
    (checkout.folder / editions.CANARIES).write_text(canaries(photographs=1))
    assert editions.changed_files("drawn") == []
    (checkout.folder / editions.TABLES).write_text("[control]\nblocks = []\n")
    assert editions.changed_files("drawn") == ["grids/tables.toml: control", "grids/tables.toml: budget"]


def test_a_canary_that_changes_with_its_version_is_left_to_the_rows_that_use_it(checkout):
    editions.freeze("drawn")
    (checkout.folder / editions.CANARIES).write_text(canaries(value=2))
    assert editions.changed_files("drawn") == [f"{editions.CANARIES}: fit"]
    (checkout.folder / editions.CANARIES).write_text(canaries(train=VERSIONS["train"] + 1, value=2))
    assert editions.changed_files("drawn") == []
    (checkout.folder / editions.CANARIES).write_text('{"canaries": {"other": {"versions": {}, "values": 1}}}')
    assert editions.changed_files("drawn") == [f"{editions.CANARIES}: fit"]


def row(seed=LOOK[0], *, scale="drawn", **provenance) -> SimpleNamespace:
    made = {"commit": "abc", "date": "2999-01-01T00:00:00+00:00", "versions": {"train": 1, "api": 1}}
    return SimpleNamespace(cell=SimpleNamespace(scale=scale, seed=seed), provenance=made | provenance)


def test_a_row_counts_by_the_versions_of_the_freeze(checkout, monkeypatch):
    monkeypatch.setattr(editions, "VERSIONS", {"train": 1, "api": 1, "drawn": 3})
    assert editions.refusal(row()) == "the freeze 'drawn' has not been entered"
    editions.freeze("drawn")
    assert editions.counts(row())
    refused = {
        "seed 1000 is not a deciding seed": row(1000),
        "it was made by files that differ from commit abc": row(commit="abc+"),
        "it was made on 2020-01-01, before the freeze": row(date="2020-01-01"),
        "it was made by version 2 of 'train', and the freeze has 1": row(versions={"train": 2, "api": 1}),
        "it was made by version 1 of 'other', and the freeze has None": row(versions={"other": 1}),
        "the freeze 'photos' has not been entered": row(scale="photos"),
    }
    assert {reason: editions.refusal(one) for reason, one in refused.items()} == {reason: reason for reason in refused}
    deviate("train", "2")
    assert editions.counts(row(versions={"train": 2, "api": 1}))
    assert not editions.counts(row())  # that key's rows are computed anew, at all seeds


@pytest.mark.parametrize("edition", editions.FROZEN)
def test_frozen_files_are_as_they_were_frozen(edition):
    assert editions.changed_files(edition) == []
