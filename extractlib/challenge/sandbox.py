"""Runs untrusted ONNX models: in bubblewrap, without network, files or processes, within limits.

A model is tried on noise first. If that run fails, the reason is given in full; if the run on the hidden images fails,
only the failure itself is reported, since a message could reveal what the images show.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import numpy as np
import torch

from extractlib.errors import InputError, check_positive, pip_install

RUNNER = Path(__file__).with_name("runner.py")

REMEDY = (
    "install bubblewrap, and allow it to create namespaces: the page for instructors says how, also in a container;"
    " until then only safetensors can be handed in"
)

WORDS = {
    "External data": "the model keeps weights in another file: export it as one file, with external_data=False",
    "is not a registered function/op": "onnxruntime does not have one of the model's operators: use only those of ONNX",
    "INVALID_PROTOBUF": "it is not an ONNX model: send the file that torch.onnx.export writes",
    "No graph was found": "it is not an ONNX model: send the file that torch.onnx.export writes",
    "Failed to allocate": "it needs more memory than allowed: use a smaller model",
    "bad_alloc": "it needs more memory than allowed: use a smaller model",
}
"""What onnxruntime says, and what that means."""


class NoSandbox(InputError):
    """Models cannot be isolated on this machine."""


class OutOfTime(InputError):
    """A model takes longer than allowed."""


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """Where a model runs.

    Attributes:
        seconds: Time that a run may take.
        megabytes: Memory that it may use, in 2^20 bytes.
        runner: The program that runs it.

    Raises:
        InputError: A limit is out of range.
    """

    seconds: int = 120
    megabytes: int = 4096
    runner: Path = RUNNER

    def __post_init__(self) -> None:
        check_positive("seconds", self.seconds, at_most=86_400)
        check_positive("megabytes", self.megabytes, at_most=2**20)

    def check(self) -> None:
        """Check from inside whether anything can get out.

        Raises:
            NoSandbox: Something can, or bubblewrap or onnxruntime is not installed; the message gives the remedy.
        """
        if sys.platform != "linux" or shutil.which("bwrap") is None:
            raise NoSandbox(f"there is no bubblewrap: {REMEDY}")
        if find_spec("onnxruntime") is None:
            raise NoSandbox(f"onnxruntime is not installed: run {pip_install('serve')}")
        with socket.create_server(("127.0.0.1", 0)) as listening:
            said, errors = self._run(subprocess.DEVNULL, "check", str(listening.getsockname()[1]))
        if said != b"+":
            reason = " ".join((said[1:] or errors).decode(errors="replace").split())[-300:]
            raise NoSandbox(f"bubblewrap does not isolate here ({reason}): {REMEDY}")

    def labels(self, model: bytes, images: torch.Tensor, *, classes: int) -> torch.Tensor:
        """Return the label that a model gives each image, int64 of shape (n,).

        Args:
            model: In ONNX: one input, images as tensor(uint8) or, from 0 to 1, tensor(float), and for each image an
                output of one number per class.
            images: uint8 of shape (n, channels, height, width).
            classes: Number of classes.

        Raises:
            InputError: The model fails or does not stay within the limits.
        """
        array = images.cpu().contiguous().numpy()
        noise = np.random.default_rng(0).integers(0, 256, (3, *array.shape[1:]), dtype=np.uint8)
        self._labels(model, noise, classes)
        try:
            return self._labels(model, array, classes)
        except InputError as error:
            told = (
                error if isinstance(error, OutOfTime) else InputError("it fails on the hidden images but not on noise")
            )
            raise told from None

    def _labels(self, model: bytes, images: np.ndarray, classes: int) -> torch.Tensor:
        with tempfile.TemporaryFile() as given:
            np.save(given, images, allow_pickle=False)
            given.write(model)
            given.seek(0)
            said, _ = self._run(given, str(self.seconds), str(self.megabytes), str(classes))
        labels = np.frombuffer(said[1:], "<u2") if said[:1] == b"+" and len(said) == 1 + 2 * len(images) else None
        if labels is None or int(labels.max()) >= classes:
            reason = said[1:].decode(errors="replace") if said[:1] == b"-" else "it ended the program that ran it"
            known = (told for words, told in WORDS.items() if words in reason)
            raise InputError(next(known, " ".join(reason.split())[:300]))
        return torch.from_numpy(labels.astype(np.int64))

    def _run(self, given: IO[bytes] | int, *words: str) -> tuple[bytes, bytes]:
        """Run the runner, and return what it and bubblewrap print: the runner limits itself to a mebibyte of each.

        Raises:
            OutOfTime: It takes longer than allowed.
        """
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as errors:
            command = [*_bubblewrap(self.runner), *words]
            try:
                subprocess.run(command, stdin=given, stdout=said, stderr=errors, timeout=self.seconds, check=False)
            except subprocess.TimeoutExpired:
                raise OutOfTime(f"it runs for more than {self.seconds} seconds: use a faster model") from None
            said.seek(0)
            errors.seek(0)
            return said.read(), errors.read()


def _bubblewrap(runner: Path) -> list[str]:
    """Return the command that runs a script that can read Python and the system's libraries but can change nothing."""
    words = ["bwrap", "--die-with-parent", "--new-session", "--clearenv", "--setenv", "OPENBLAS_NUM_THREADS", "1"]
    words += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    words += ["--cap-drop", "ALL"]
    if os.geteuid() == 0:  # the runner becomes nobody: root's processes are not counted
        words += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        words += ["--unshare-user", "--disable-userns"]
    for place in ("/usr", "/lib", "/lib64", sys.base_prefix, sys.prefix):
        for parent in reversed(Path(place).parents):  # which otherwise only root can read
            words += ["--perms", "0755", "--dir", str(parent)]
        words += ["--ro-bind-try", place, place]
    for place in ("/proc/cpuinfo", "/sys/devices/system/cpu"):  # from which onnxruntime chooses its fast paths
        words += ["--ro-bind-try", place, place]
    words += ["--ro-bind", str(runner), "/runner.py", "--dev", "/dev", "--remount-ro", "/dev", "--remount-ro", "/"]
    return [*words, "--", sys.executable, "-I", "/runner.py"]
