"""Prepare and run the measurements on a machine with a GPU and no network; `device_steps` measures.

It needs only Python, so that it runs before the missing packages are installed. Each step is a separate process: it can
be stopped at its limit, and a failure in it does not stop the next.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from extractlib.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
PREPARED = ROOT / "_build" / "device"
PACKS = ("cifar10.tar.xz", "tinyimagenet64-sample.tar.xz")
"""The packs that fit in one transfer, besides weights, wheels and the working tree."""

LATER = ("gtsrb-core.tar.xz",)
"""The packs that a second call brings, while the machine still has what the first one unpacked."""

WEIGHTS = "lite0.safetensors"
"""ImageNet weights, folded, in half precision: a third of the size of the package that has them."""

WHEELS = ("imagehash", "safetensors", "filelock", "platformdirs", "tqdm", "lazy_loader", "sqlalchemy")
"""What the steps import beyond torch, torchvision, numpy, scipy, pandas and Pillow, by name."""

OLDEST_PYTHON = "3.11"
LIMIT = 64 * 2**20
"""Bytes that the prepared folder and the working tree may take together."""

SECONDS = 540
RESERVE = 10
"""Seconds reserved for ending a step that was stopped."""


@dataclass(frozen=True)
class Step:
    """A part of the run.

    Attributes:
        name: Its name in `device_steps.STEPS`.
        least: Seconds; with fewer left, the step is not begun.
        most: Seconds after which the step is stopped.
    """

    name: str
    least: float
    most: float


STEPS = (Step("rates", 30, 130), Step("cifar10", 60, 250), Step("gtsrb", 40, 250), Step("querying", 20, 60))
"""In order of importance."""

NEEDS = {"cifar10": PACKS, "gtsrb": (*LATER, PACKS[1])}
"""The packs that each step needs, carried now or unpacked by an earlier call."""


@dataclass(frozen=True)
class Record:
    """A file of results, one JSON object per line, each written as it comes.

    Attributes:
        path: The file.
        device: Name of the device.
        torch: Version of torch.
        commit: Commit of the code.
    """

    path: Path
    device: str
    torch: str
    commit: str

    def write(
        self, step: str, what: str, value: float | str | None, unit: str = "", *, seconds: float, **settings
    ) -> None:
        """Add one result and print it.

        Args:
            step: The step.
            what: What was measured.
            value: The figure, a word on how a step ended, or None if a measurement failed.
            unit: Unit of the figure.
            seconds: How long the measurement took.
            settings: The settings of the measurement.
        """
        line = json.dumps(
            {
                "step": step,
                "what": what,
                "value": float(f"{value:.6g}") if isinstance(value, float) else value,
                "unit": unit,
                "seconds": round(seconds, 2),
                "device": self.device,
                "torch": self.torch,
                "commit": self.commit,
                "settings": settings,
            }
        )
        with open(self.path, "a") as file:  # closed each time, so that what is written stays, whatever happens
            file.write(line + "\n")
        print(line, flush=True)


def main() -> int:
    """Prepare or run, as the command line says, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    preparing = commands.add_parser("prepare", help="make the folder that goes to the machine")
    preparing.add_argument("packs", type=Path, help="folder with the packs and their SHA256SUMS")
    preparing.add_argument("--later", action="store_true", help="make what a second call brings, to a warm machine")
    running = commands.add_parser("run", help="measure")
    running.add_argument("--rehearse", action="store_true", help="measure at a tiny size on the CPU")
    options = parser.parse_args()
    if options.command == "prepare":
        print(prepare(options.packs, names=LATER if options.later else PACKS))
        return 0
    out = ROOT / os.environ.get("OUT", "_build/device-results")
    return 0 if run(out, rehearse=options.rehearse) else 1


# -- preparing ---------------------------------------------------------------


def prepare(packs: Path, *, names: Iterable[str] | None = None, folder: Path = PREPARED) -> str:
    """Make the folder that goes to the machine: packs, weights, wheels, and the commit of the code.

    Args:
        packs: Folder with the packs and their checksums, ``SHA256SUMS``.
        names: Which packs; `PACKS` if None.
        folder: The folder to make; an existing one is replaced if nothing is wrong with the new one.

    Returns:
        What was made and how large it is, in words.

    Raises:
        InputError: A pack is missing or does not match its checksum, weights or a wheel cannot be obtained, or folder
            and working tree together are larger than `LIMIT`.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".device-", dir=folder.parent) as place:
        partial = Path(place) / folder.name
        (partial / "wheels").mkdir(parents=True)
        sums = _checksums(packs)
        for name in PACKS if names is None else names:
            _copy(packs / name, partial / name, sums.get(name))
        write_weights(partial / WEIGHTS)
        download(WHEELS, partial / "wheels")
        (partial / "commit").write_text(f"{_commit()} {code_digest()}\n")
        size, tree = sum(_size(file) for file in partial.rglob("*")), tree_size()
        parts = (
            f"packs, weights and wheels {size:,} bytes, working tree {tree:,}, together {size + tree:,} of {LIMIT:,}"
        )
        if size + tree > LIMIT:
            raise InputError(f"{folder} would be too large: {parts}; take smaller packs, or clear the working tree")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
    return f"{folder}: {parts}"


def _checksums(packs: Path) -> dict[str, str]:
    """Return the SHA-256 of each pack by name."""
    listed = packs / "SHA256SUMS"
    if not listed.is_file():
        raise InputError(f"{listed} is missing: name the folder with the packs and their checksums")
    return {name.strip().lstrip("*"): value for value, name in map(_halves, listed.read_text().splitlines())}


def _halves(line: str) -> tuple[str, str]:
    first, _, second = line.partition(" ")
    return first, second


def _copy(source: Path, target: Path, checksum: str | None) -> None:
    if checksum is None or not source.is_file():
        raise InputError(f"{source} is missing, or has no line in SHA256SUMS")
    shutil.copyfile(source, target)
    with open(target, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != checksum:
        raise InputError(f"{source} has the SHA-256 {found}, and SHA256SUMS says {checksum}: get it again")


def write_weights(path: Path) -> None:
    """Write the ImageNet weights of EfficientNet-Lite0 in half precision.

    Raises:
        InputError: Their package is not installed.
    """
    from safetensors.torch import save_file

    from extractlib.models import networks  # the machine that prepares has the whole package

    save_file({name: value.half() for name, value in networks.imagenet_backbone("lite0").items()}, path)


def download(names: Iterable[str], folder: Path) -> None:
    """Download wheels at the lock's versions that any Python from `OLDEST_PYTHON` on can use, on x86-64 Linux.

    Raises:
        InputError: The lock does not pin a package, or its wheel cannot be downloaded.
    """
    pinned = pins()
    lacking = [name for name in names if name not in pinned]
    if lacking:
        raise InputError(f"requirements.txt does not pin {lacking[0]}")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", OLDEST_PYTHON, "--implementation", "cp", "--abi", "abi3", "--abi", "none"]
    command += ["--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_17_x86_64", "--dest", str(folder)]
    command += [f"{name}=={pinned[name].strip()}" for name in names]
    if subprocess.run(command, check=False).returncode:
        raise InputError("pip could not download the wheels: see its message above")


def pins() -> dict[str, str]:
    """Return the version of each package that the lock pins for the oldest Python, by its import name."""
    from extractbook.build.execute import pinned  # the machine that prepares has it

    oldest = {"python_version": OLDEST_PYTHON, "python_full_version": f"{OLDEST_PYTHON}.0"}
    found = pinned((ROOT / "requirements.txt").read_text(), oldest)
    return {name.replace("-", "_"): version for name, version in found.items()}


def tree_size() -> int:
    """Return the bytes of the working tree's files, without those that git ignores."""
    names = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return sum(_size(ROOT / name) for name in names if name)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _commit() -> str:
    """Return the commit, followed by ``+`` if tracked files differ from it."""
    return _git("describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*").strip() or "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def code_digest() -> str:
    """Return the digest of all code that the steps run, including the settings of the scales."""
    parts = ("benchmarks", "extractlib", "book/extractbook/reproduction")
    files = sorted(file for part in parts for kind in ("*.py", "*.toml") for file in (ROOT / part).rglob(kind))
    state = hashlib.sha256()
    for file in files:
        state.update(f"{file.relative_to(ROOT)} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return state.hexdigest()


def prepared_commit(folder: Path = PREPARED) -> str:
    """Return the commit that was prepared, followed by ``+`` if the code has changed since.

    Raises:
        InputError: Nothing was prepared.
    """
    try:
        commit, digest = (folder / "commit").read_text().split()
    except FileNotFoundError:
        raise InputError(f"{folder} is not prepared: run benchmarks/device_prepare.sh PACKS") from None
    return commit if digest == code_digest() or commit.endswith("+") else f"{commit}+"


# -- running -----------------------------------------------------------------


def run(out: Path, *, rehearse: bool = False) -> bool:
    """Run all steps within `SECONDS`, counted from now.

    Meanwhile another process unpacks and decodes the packs, which does not disturb the GPU.

    Args:
        out: Folder of the results.
        rehearse: Whether to run at a tiny size on the CPU.

    Returns:
        Whether every step whose packs are there was done.

    Raises:
        InputError: Nothing was prepared, there is no GPU, or the missing packages cannot be installed.
    """
    begun = time.monotonic()
    commit = prepared_commit()
    work = ROOT / "_build" / ("device-rehearsal" if rehearse else "device-work")
    shutil.rmtree(work / "trained", ignore_errors=True)  # what is timed is trained again
    out.mkdir(parents=True, exist_ok=True)
    results = out / ("rehearsal.jsonl" if rehearse else "results.jsonl")
    places = (str(ROOT / "book"), install(work / "site"), os.environ.get("PYTHONPATH"))
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, places)),
        "PYTHONUNBUFFERED": "1",
        "TQDM_DISABLE": "1",
        "EXTRACTLIB_DEVICE": "cpu" if rehearse else "cuda",
    }
    if rehearse:
        environment.setdefault("OMP_NUM_THREADS", "1")

    def command(step: str) -> list[str]:
        options = ["--results", str(results), "--work", str(work), "--packs", str(PREPARED), "--commit", commit]
        return [sys.executable, "-m", "benchmarks.device_steps", step, *options, *["--rehearse"] * rehearse]

    found = subprocess.run(command("device"), env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if found.returncode:
        raise InputError("there is no GPU that torch can use (see above): use --rehearse to run on the CPU")
    results.write_text("")
    record = Record(results, **json.loads(found.stdout.splitlines()[-1]), commit=commit)
    unpacking = subprocess.Popen(command("unpack"), env=environment, cwd=ROOT, process_group=0)
    here = {*(pack.name for pack in PREPARED.glob("*.tar.xz")), *unpacked(work)}
    steps = [step for step in STEPS if here.issuperset(NEEDS.get(step.name, ()))]
    print(f"steps: {', '.join(step.name for step in steps)}", flush=True)
    try:
        done = run_steps(
            steps,
            lambda step, limit: run_process(command(step.name), limit=limit, env=environment),
            record=record,
            seconds=SECONDS - RESERVE - (time.monotonic() - begun),
        )
    finally:
        end(unpacking)
    print(f"{results}: {len(results.read_text().splitlines())} lines, {time.monotonic() - begun:.0f} s in all")
    return done


def unpacked(work: Path) -> set[str]:
    """Return the packs that an earlier call has unpacked."""
    return {json.loads(key.read_text())["pack"] for key in work.glob("images/unpacked/*/key.json")}


def run_steps(
    steps: Iterable[Step],
    run_one: Callable[[Step, float], str],
    *,
    record: Record,
    seconds: float,
    now: Callable[[], float] = time.monotonic,
) -> bool:
    """Run steps one after the other, and record how each ended.

    Args:
        steps: The steps in order of importance.
        run_one: Runs a step for at most the given seconds and returns how it ended, ``"done"`` if it succeeded.
        record: Where that is written.
        seconds: Time for all of them. A step that would begin with less than its `Step.least` left is skipped.
        now: The clock.

    Returns:
        Whether every step was done.
    """
    start, ends = now(), []
    for step in steps:
        begun = now()
        left = seconds - (begun - start)
        if left < step.least:
            ended = f"skipped: {max(left, 0):.0f} s left, at least {step.least:.0f} s wanted"
        else:
            ended = run_one(step, min(step.most, left))
        record.write(step.name, "how the step ended", ended, seconds=now() - begun)
        ends.append(ended)
    return all(ended == "done" for ended in ends)


def run_process(command: list[str], *, limit: float, env: dict[str, str] | None = None) -> str:
    """Run a command for at most `limit` seconds, and return how it ended, ``"done"`` for status 0."""
    process = subprocess.Popen(command, env=env, cwd=ROOT, process_group=0)
    try:
        status = process.wait(limit)
    except subprocess.TimeoutExpired:
        return f"stopped at its limit of {limit:.0f} s"
    finally:
        end(process)
    return "done" if status == 0 else f"failed with status {status}: see the log"


def end(process: subprocess.Popen) -> None:
    """End a process, if it has not ended, with everything that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def install(folder: Path) -> str | None:
    """Install the packages missing in this Python from the prepared wheels; return the folder they are in, if any.

    Raises:
        InputError: They cannot be installed.
    """
    missing = [name for name in WHEELS if importlib.util.find_spec(name) is None]
    if not missing:
        return None
    print(f"installing {', '.join(missing)}", flush=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-index",
        "--no-deps",
    ]
    command += ["--find-links", str(PREPARED / "wheels"), "--upgrade", "--target", str(folder), *missing]
    if subprocess.run(command, check=False).returncode:
        raise InputError(f"pip could not install {', '.join(missing)}: see its message above")
    return str(folder)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(f"benchmarks.device: {error}")
