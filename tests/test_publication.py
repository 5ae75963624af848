"""What is published and where it opens: workflows that call make, and notebooks that set themselves up."""

import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
import yaml
from chapters import Chapter

from benchmarks import readme
from extractbook.sphinx import furniture

ROOT = furniture.ROOT
FRONT = "book/_static/front.png"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
WRITES = {"deploy": {"pages", "id-token"}, "links": {"issues"}, "release": {"contents"}}

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
def test_actions_are_githubs_own_and_pinned_by_hash_with_their_version(path):
    used = re.findall(r"uses: (.*)", path.read_text())
    assert (
        used and [one for one in used if not re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", one)] == []
    )


@each_workflow
def test_permissions_are_the_least(path):
    assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}
    for name, job in jobs(path).items():
        granted = job.get("permissions", {})
        assert {scope for scope, level in granted.items() if level == "write"} == WRITES.get(name, set()) & set(granted)
        assert "timeout-minutes" in job or name == "deploy"


def test_every_supported_python_is_tried_each_week():
    weekly = jobs(ROOT / ".github" / "workflows" / "weekly.yml")
    tried = weekly["pythons"]["strategy"]["matrix"]["python"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert tried == [name.split(" :: ")[-1] for name in project["classifiers"] if re.search(r"3\.\d+$", name)]
    assert project["requires-python"] == f">={tried[0]}"


def test_the_readme_is_short_and_leads_everywhere():
    """It reads on the package index too: no link depends on the repository around it."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert [link for link in links if not link.startswith("https://")] == []
    wanted = [furniture.site(), *(furniture.launch("05_knockoff")[name] for name in ("Colab",))]
    wanted += [
        f"{furniture.site()}{name}" for name in ("stealing-classifiers.pdf", "slides/05_knockoff.html", "data/rows.csv")
    ]
    wanted += [
        furniture.launch("index")["Binder"],
        f"https://raw.githubusercontent.com/extractlib/extractlib/main/{FRONT}",
    ]
    assert [link for link in wanted if link not in links] == []
    inside = [re.search(r"/blob/main/(.*)", link)[1] for link in links if f"{furniture.repository()}/blob/" in link]
    assert inside and [name for name in inside if not (ROOT / name).exists()] == [] and (ROOT / FRONT).exists()
    pages = re.findall(rf"{re.escape(furniture.site())}book/(\w+)\.html", text)
    assert pages and [name for name in pages if not list((ROOT / "book").glob(f"{name}.*"))] == []
    assert readme.RESULTS.search(text)[2] == readme.results(), "run make readme"


def test_what_is_cited_and_packaged_names_the_books_one_address():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    cited = furniture.configuration("CITATION.cff")
    assert project["urls"]["Source"] == cited["repository-code"] == furniture.repository()
    assert project["urls"]["Book"] == cited["url"] == furniture.site()
    assert cited["version"] == project["version"] and cited["references"][0]["doi"] == "10.1007/978-3-030-62144-5_4"


def test_binder_installs_torch_for_cpus_at_the_locks_version():
    binder = dict(re.findall(r"^([\w-]+)==([\w.]+)\+cpu$", (ROOT / "binder" / "requirements.txt").read_text(), re.M))
    lock = dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "requirements.txt").read_text(), re.M))
    assert binder == {name: lock[name] for name in ("torch", "torchvision")}
    assert (ROOT / "binder" / "runtime.txt").read_text().strip() == "python-3.11"


def test_all_that_is_checked_stands_in_one_list():
    makefile = (ROOT / "Makefile").read_text()
    [checks] = re.findall(r"^CHECKS := (.*)$", makefile, re.MULTILINE)
    assert checks.split() == "lint binder test book pdf check-pages check-courses verify sizes".split()
    assert set(checks.split()) <= TARGETS
    for path in (ROOT / ".ci" / "run", *WORKFLOWS[:2]):
        called = re.findall(r"make ([a-z-]+)", path.read_text().split("set -euo pipefail")[-1])
        assert "check" in called and set(checks.split()) & set(called) == set(), path


@pytest.mark.parametrize(
    ("words", "scale", "warned"),
    [([], "drawn", False), (["SCALE=smoke"], "smoke", False), (["PROFILE=smoke"], "smoke", True)],
)
def test_make_takes_a_scale_and_its_old_name(words, scale, warned):
    ran = subprocess.run(["make", "-n", "book", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"extractbook build --scale {scale}\n" in ran.stdout
    assert ("PROFILE is now called SCALE" in ran.stderr) == warned


# The first cell, as on Colab: the package missing, torch and numpy there, nothing else of the book around.

KEPT = ("torch", "torchvision", "numpy")
BROUGHT = (*KEPT, "matplotlib", "ipywidgets")
# A proxy that nobody answers at; and should pip get through all the same, it changes nothing here.
OFFLINE = {"HTTPS_PROXY": "http://127.0.0.1:9", "PIP_RETRIES": "0", "PIP_TARGET": "elsewhere"}


def run_cells(python: str, folder: Path, *cells: str, **environment: str) -> subprocess.CompletedProcess:
    """Run cells by IPython's own means, each only if the one before it did not fail, as "Run all" does."""
    (folder / "cells.py").write_text(
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance(colors='NoColor')\n"
        f"done = all(shell.run_cell(cell).success for cell in {cells!r})\n"
        "from importlib.metadata import version\n"
        f"print('all' if done else 'stopped', 'with', *map(version, {KEPT}))\n"
    )
    environment = os.environ | {"PYTHONPATH": ""} | environment
    command = [python, "cells.py"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_first_cell_does_nothing_where_the_package_is(tmp_path):
    cell = furniture.setup_cell()
    assert cell.count("subprocess.run(") == 1
    ran = run_cells(sys.executable, tmp_path, cell.replace("subprocess.run(", "print("), **OFFLINE)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("all with ")


def test_first_cell_without_a_network_says_so_and_stops(tmp_path):
    """Of a package that is nowhere: a mere folder of its name, as a clone on Colab's path is, is none."""
    cell = furniture.setup_cell().replace('"extractbook"', '"cloned"')
    (tmp_path / "cloned").mkdir()
    ran = run_cells(sys.executable, tmp_path, cell, "print('went on')", **OFFLINE)
    assert ran.stdout.splitlines()[-1].startswith("stopped with ") and "went on" not in ran.stdout
    said = ran.stdout + ran.stderr
    told = (
        "SystemExit: The book's package cannot be installed: switch the internet on (on Kaggle: Settings, Internet) and"
    )
    assert f"{told} run this cell again. pip says: " in said and "Cannot connect to proxy" in said
    assert "Traceback" not in said
    (tmp_path / "cloned" / "__init__.py").touch()
    assert "went on\nall with " in run_cells(sys.executable, tmp_path, cell, "print('went on')", **OFFLINE).stdout


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
    following = [cell.source for cell in Chapter.read("01_threat").own("code")[1:3]]
    ran = run_cells(python, tmp_path, fetched_from_here(tmp_path), *following)
    assert ran.returncode == 0, ran.stderr
    assert f"all {before}" in ran.stdout, ran.stdout + ran.stderr


def fetched_from_here(folder: Path) -> str:
    """Return the first cell with an archive of this clone, as GitHub would make it, in place of the public one."""
    archive = folder / "HEAD.zip"
    command = ["git", "archive", "--format=zip", "--prefix=extractlib-HEAD/", f"--output={archive}", "HEAD"]
    subprocess.run(command, cwd=ROOT, check=True)
    address, cell = f"{furniture.repository()}/archive/HEAD.zip", furniture.setup_cell("HEAD")
    assert address in cell
    return cell.replace(address, archive.as_uri())
