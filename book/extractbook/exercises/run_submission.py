"""Runs a submitted notebook inside the sandbox that contains this program, and prints the outputs of its cells.

The notebook is next to this file. A cell that fails or takes too long gets an error as its output. If the kernel ends,
so does the run, and the outputs up to then are printed.
"""

import json
import sys
import tempfile
from pathlib import Path

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).with_name("submission.ipynb")
TOO_SLOW = {"ename": "Timeout", "evalue": "the cell took too long", "traceback": ["Timeout: the cell took too long"]}


def main() -> None:
    """Run the notebook, each cell for at most the number of seconds in the only argument; print all outputs as JSON."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        # Sockets in a folder instead of ports: there is no network here.
        manager = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{folder}/kernel")
        manager.kernel_spec.argv[0] = sys.executable  # type: ignore[union-attr]  # ipykernel sets it
        options = {"timeout": int(sys.argv[1]), "startup_timeout": 600, "iopub_timeout": 60, "allow_errors": True}
        client = NotebookClient(notebook, manager, error_on_timeout=TOO_SLOW, interrupt_on_timeout=True, **options)
        try:
            client.execute()
        except Exception as error:  # the kernel has ended; the outputs before that count
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
    json.dump([cell.get("outputs", []) for cell in notebook.cells], sys.stdout)


if __name__ == "__main__":
    main()
