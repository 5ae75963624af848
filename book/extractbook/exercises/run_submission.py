"""Runs a submitted notebook in the sandbox that this program is in, and prints what its cells showed.

The notebook stands beside this file. A cell that fails or takes too long is told so in its place; what ends the kernel
ends the run, and what was shown until then is printed.
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
    """Run the notebook, a cell for as many seconds as the only argument says, and print its cells' outputs as JSON."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        # Sockets in a folder instead of ports: there is no network here.
        manager = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{folder}/kernel")
        manager.kernel_spec.argv[0] = sys.executable  # type: ignore[union-attr]  # ipykernel brings it
        options = {"timeout": int(sys.argv[1]), "startup_timeout": 600, "iopub_timeout": 60, "allow_errors": True}
        client = NotebookClient(notebook, manager, error_on_timeout=TOO_SLOW, interrupt_on_timeout=True, **options)
        try:
            client.execute()
        except Exception as error:  # a kernel that has ended; what came before it counts
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
    json.dump([cell.get("outputs", []) for cell in notebook.cells], sys.stdout)


if __name__ == "__main__":
    main()
