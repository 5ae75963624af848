"""Install what a notebook of the book lacks where it runs; run by the first cell of each.

It runs on Colab, Kaggle or a JupyterHub with nothing but what these bring along, and never changes the torch and numpy
that are there.
"""

import subprocess
import sys
import tempfile
from importlib import invalidate_caches
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

KEPT = ("torch", "torchvision", "numpy")


def main() -> None:
    """Install the package from the clone that this file is in, if it is missing."""
    if installed("extractlib") or importable("extractlib"):
        return
    root = Path(__file__).resolve().parent.parent
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.writelines(f"{name}=={there}\n" for name in KEPT if (there := installed(name)))
        constraints.flush()
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*command, "--constraint", constraints.name, str(root), "ipywidgets"], check=True)
    invalidate_caches()  # or the running kernel may not see what has come since it looked


def importable(name: str) -> bool:
    """Say whether a package can be imported; a mere folder of its name, as the clone is on Colab's path, is none."""
    found = find_spec(name)
    return found is not None and found.origin is not None


def installed(name: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
