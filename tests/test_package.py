"""The two packages as they are installed: what importing them costs, what lies in them, and that they run alone."""

import os
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version

import pytest

import extractlib
from benchmarks import sizes
from extractbook.build import execute
from extractlib.errors import pip_install

PROJECT = tomllib.loads((execute.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HEAVY = {
    "fastapi",
    "uvicorn",
    "httpx",
    "pydantic",
    "torch",
    "torchvision",
    "pandas",
    "sqlalchemy",
    "matplotlib",
    "nbformat",
    "scipy",
    "extractlib.data",
}


def run(code: str, *words: str, **environment: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    command = [sys.executable, "-c", code, *words]
    ran = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize(
    "code",
    [
        "import extractlib",
        "import extractbook",
        "import extractlib; extractlib.__version__",
        "from extractlib.cli import app; app(['--help'], standalone_mode=False)",
        "from extractbook.cli import app; app(['--help'], standalone_mode=False)",
    ],
)
def test_what_a_reader_meets_first_loads_nothing_heavy(code):
    loaded = run(f"{code}\nimport sys; print(); print(*sys.modules)").splitlines()[-1].split()
    assert "extractlib" in loaded or "extractbook" in loaded
    assert HEAVY & set(loaded) == set()


def test_version_is_the_distributions(command):
    assert extractlib.__version__ == version("extractlib") == PROJECT["project"]["version"]
    assert command("--version") == (0, f"{extractlib.__version__}\n", "")
    assert run("import sys; from extractlib.__main__ import main; sys.exit(main())", "--version").strip() == (
        extractlib.__version__
    )


def test_a_name_that_the_library_has_not():
    with pytest.raises(AttributeError, match="stolen"):
        extractlib.stolen  # noqa: B018


def test_what_is_not_installed_is_named(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "extractbook.build.courses", None)
    monkeypatch.delattr("extractbook.build.courses", raising=False)
    with pytest.raises(ImportError):  # of our own is a fault, and shows as one
        command("launch")
    monkeypatch.undo()
    for name in ("extractbook.build.courses", "extractbook.build.execute"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delattr("extractbook.build.courses", raising=False)
    monkeypatch.setitem(sys.modules, "nbformat", None)
    status, printed, errors = command("launch")
    assert (status, printed) == (2, "")
    assert errors == f"extractbook: nbformat is not installed: run {pip_install('book')}\n"


def test_the_book_is_made_in_a_clone_only(command, monkeypatch, tmp_path):
    monkeypatch.setattr("extractbook.cli.CLONE", tmp_path)
    for words in (["build"], ["pdf"], ["launch"], ["assignment", "--chapter", "5", "--course", "autumn"]):
        line = f"extractbook: {tmp_path} does not contain the book: run this in a clone of its repository\n"
        assert command(*words) == (2, "", line)


@pytest.mark.parametrize("package", execute.PACKAGES)
def test_every_file_beside_the_code_is_packaged(package):
    folder, patterns = execute.PACKAGES[package], PROJECT["tool"]["setuptools"]["package-data"][package]
    files = {path for path in folder.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc", ".lock"}}
    assert folder / "py.typed" in files and len(files) > 5
    assert files - {path for pattern in patterns for path in folder.glob(pattern)} == set()
    without = {path.parent for path in folder.rglob("*.py")} - {path.parent for path in folder.rglob("__init__.py")}
    assert without == set()  # or setuptools passes the folder over


@pytest.mark.slow
def test_the_wheel_runs_on_its_own(tmp_path):
    source = tmp_path / "source"  # of a clone only what a wheel is made of, and nothing is left behind in it
    for folder in execute.PACKAGES.values():
        shutil.copytree(folder, source / folder.relative_to(execute.ROOT))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(execute.ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, source], check=True)
    [wheel] = tmp_path.glob("*.whl")
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--target", tmp_path / "site", wheel], check=True)
    code = "import extractbook, sys; from extractbook.__main__ import main; print(extractbook.__file__); main()"
    ran = subprocess.run(
        [sys.executable, "-c", code, "ledger"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    place, *lines = ran.stdout.splitlines()
    assert place.startswith(str(tmp_path))
    assert {line.split()[0] for line in lines} >= {"C1", "C15", "B1"}
    for package, folder in execute.PACKAGES.items():
        there = {path.relative_to(tmp_path / "site" / package) for path in (tmp_path / "site" / package).rglob("*.*")}
        ours = {path.relative_to(folder) for path in folder.rglob("*.*") if path.suffix != ".pyc"}
        assert ours - there == set()


SOURCE = b'''"""Text
in two lines."""

# why
X = """
data
"""  # no docstring


def f():
    "Text."
    return X
'''


def test_lines_of_code_are_counted():
    assert sizes.code_lines(SOURCE) == 5


@pytest.mark.parametrize("name", ["data.sets", "defenses.ownership"])
def test_a_documented_module_is_there_without_an_import_of_its_own(name):
    package, _, module = name.partition(".")
    code = f"import extractlib as xl; print(xl.{package}.{module}.__name__)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == f"extractlib.{name}"


@pytest.mark.parametrize(
    ("registry", "last"),
    [
        ("data.sets import SETS", "miniplaces"),
        ("defenses.policies import POLICIES", "mislabel"),
        ("api.granularity import KINDS", "temperature"),
        ("models.networks import NETWORKS", "lite1-head"),
    ],
)
def test_a_registry_is_complete_however_it_is_reached(registry, last):
    """Also what another module adds to it, which nobody has imported."""
    name = registry.rpartition(" ")[2]
    code = f"from extractlib.{registry}; print(*{name})"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split()[-1] == last
