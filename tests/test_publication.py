"""What is published and where it opens: workflows that call make, and notebooks that set themselves up."""

import os
import re
import subprocess
import sys
import venv
from importlib import invalidate_caches
from pathlib import Path

import pytest
import yaml
from chapters import Chapter
from install import KEPT, importable

from extractbook.sphinx import furniture

ROOT = furniture.ROOT
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
WRITES = {"deploy": {"pages", "id-token"}, "links": {"issues"}}

each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def jobs(path: Path) -> dict:
    return yaml.safe_load(path.read_text())["jobs"]


def test_there_is_a_workflow_for_a_change_for_main_and_for_the_week():
    # YAML takes the word "on" for True.
    events = [yaml.safe_load(path.read_text())[True] for path in WORKFLOWS]
    names = {name for event in events for name in ([event] if isinstance(event, str) else event)}
    assert names >= {"pull_request", "push", "schedule"}


@each_workflow
def test_workflows_only_call_make_targets_that_exist(path):
    commands = [step["run"] for job in jobs(path).values() for step in job["steps"] if "run" in step]
    for command in commands:
        assert re.fullmatch(r"make [a-z-]+( [A-Z]+=\w+)*", command), command
        assert command.split()[1] in TARGETS, command


@each_workflow
def test_actions_are_githubs_own_and_pinned(path):
    used = [step["uses"] for job in jobs(path).values() for step in job["steps"] if "uses" in step]
    assert [action for action in used if not re.fullmatch(r"actions/[a-z-]+@v\d+\.\d+\.\d+", action)] == []


@each_workflow
def test_permissions_are_the_least(path):
    assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}
    for name, job in jobs(path).items():
        granted = job.get("permissions", {})
        assert {scope for scope, level in granted.items() if level == "write"} == WRITES.get(name, set()) & set(granted)
        assert "timeout-minutes" in job or name == "deploy"


def test_binder_installs_torch_for_cpus_at_the_locks_version():
    binder = dict(re.findall(r"^([\w-]+)==([\w.]+)\+cpu$", (ROOT / "binder" / "requirements.txt").read_text(), re.M))
    lock = dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "requirements.txt").read_text(), re.M))
    assert binder == {name: lock[name] for name in ("torch", "torchvision")}
    assert (ROOT / "binder" / "runtime.txt").read_text().strip() == "python-3.11"


# The first cell, as on Colab: the package missing, torch and numpy there, nothing else of the book around.

BROUGHT = ("torch", "torchvision", "numpy", "matplotlib", "ipywidgets")


def run_first_cell(python: str, folder: Path, *, then: str = "import extractlib") -> subprocess.CompletedProcess:
    """Run the set-up cell by IPython's own means, cloning this repository in place of the public one, and another."""
    (folder / "cell.py").write_text(
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\n"
        f"shell.run_cell({furniture.setup_cell('HEAD')!r}).raise_error()\n"
        "import pathlib\n"
        "from importlib.metadata import version\n"
        f"shell.run_cell({then!r}).raise_error()\n"
        "print('at', pathlib.Path.cwd().parent.name, pathlib.Path('results/edition-1/drawn').is_dir())\n"
        f"print('with', *map(version, {KEPT}))\n"
    )
    environment = os.environ | {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{ROOT}.insteadOf",
        "GIT_CONFIG_VALUE_0": furniture.repository(),
        "PYTHONPATH": "",
    }
    return subprocess.run([python, "cell.py"], cwd=folder, env=environment, capture_output=True, text=True, check=False)


def origin(folder: Path) -> str:
    """Return from where this environment's extractlib was installed, as another process in `folder` sees it."""
    question = "from importlib.metadata import distribution as d; print(d('extractlib').read_text('direct_url.json'))"
    command = [sys.executable, "-c", question]
    environment = os.environ | {"PYTHONPATH": ""}
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return ran.stdout.strip()


def test_first_cell_fetches_the_book_and_installs_nothing_that_is_there(tmp_path):
    before = origin(tmp_path)
    ran = run_first_cell(sys.executable, tmp_path)
    assert ran.returncode == 0, ran.stderr
    # What this environment runs is still the package that these tests are beside.
    assert origin(tmp_path) == before != ""
    name = furniture.repository().rsplit("/", 1)[1]
    assert f"at {name} True" in ran.stdout
    assert (tmp_path / name / "book" / "install.py").exists()


def test_a_folder_of_the_packages_name_is_not_the_package(tmp_path, monkeypatch):
    """Colab's path holds the folder into which the first cell clones the book."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "cloned").mkdir()
    assert not importable("cloned")
    (tmp_path / "cloned" / "__init__.py").touch()
    invalidate_caches()
    assert importable("cloned") and not importable("nowhere")


@pytest.mark.slow
@pytest.mark.parametrize("lowest", [True, False], ids=["lowest", "newest"])
def test_first_cell_in_a_bare_environment(tmp_path, lowest):
    """With only what Colab brings along from before, of which torch, torchvision and numpy stay what they are."""
    bounds = re.findall(rf'^    "({"|".join(BROUGHT)})>=([\w.]+)",', (ROOT / "pyproject.toml").read_text(), re.M)
    assert sorted(name for name, _ in bounds) == sorted(BROUGHT)
    venv.create(tmp_path / "bare", with_pip=True)
    python = str(tmp_path / "bare" / "bin" / "python")
    there = [f"{name}=={bound}" if lowest else name for name, bound in bounds]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *there], check=True)
    question = f"from importlib.metadata import version; print('with', *map(version, {KEPT}))"
    before = subprocess.run([python, "-c", question], capture_output=True, text=True, check=True).stdout.strip()
    following = Chapter.read("01_threat").own("code")[1:3]
    ran = run_first_cell(python, tmp_path, then="\n".join(cell.source for cell in following))
    assert ran.returncode == 0, ran.stderr
    assert before in ran.stdout
    name = furniture.repository().rsplit("/", 1)[1]
    assert f"at {name} True" in ran.stdout
