"""Runs in the sandbox, as a script: gives up its privileges, then runs an untrusted model on some images.

Standard input holds the images as an npy array, uint8 of shape (n, channels, height, width), followed by the model in
ONNX. Standard output gets ``+`` and the label of each image in two bytes, or ``-`` and the reason why there are none.
"""

import os
import resource
import socket
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

NOBODY = 61_183
"""A user that owns nothing, for a server that runs as root."""

MOST_WORDS, MOST_BYTES = 300, 2**20


def main() -> None:
    """Run ``runner.py SECONDS MEGABYTES CLASSES``.

    ``runner.py check PORT`` says whether the sandbox is tight, given a port on which a server listens outside.
    """
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    checking = sys.argv[1] == "check"
    seconds, megabytes, classes = (10, 4096, 2) if checking else map(int, sys.argv[1:])
    _limit(resource.RLIMIT_CPU, seconds)
    _limit(resource.RLIMIT_AS, megabytes * 2**20)
    _limit(resource.RLIMIT_FSIZE, MOST_BYTES)
    _limit(resource.RLIMIT_CORE, 0)
    try:
        import numpy as np
        import onnxruntime

        onnxruntime.set_default_logger_severity(4)
        _limit(resource.RLIMIT_NPROC, 0)  # neither processes nor threads from here on
        if checking:
            said = (
                b"-" + b"".join(found) if (found := [*_reaches_out(int(sys.argv[2])), *_forks(), *_writes()]) else b"+"
            )
        else:
            images = np.lib.format.read_array(sys.stdin.buffer)
            labels = _labels(onnxruntime, sys.stdin.buffer.read(), images, classes)
            said = b"+" + labels.astype("<u2").tobytes()
    except MemoryError:
        said = b"-Failed to allocate"  # in onnxruntime's words
    except BaseException as error:  # a model can fail in any way
        said = f"-{' '.join(str(error).split())[:MOST_WORDS] or type(error).__name__}".encode(errors="replace")
    sys.stdout.buffer.write(said)
    sys.stdout.flush()


def _limit(kind: int, most: int) -> None:
    resource.setrlimit(kind, (most, most))


def _labels(onnxruntime: ModuleType, model: bytes, images: Any, classes: int) -> Any:
    """Return the label of each image, int64 of shape (n,)."""
    import numpy as np

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise ValueError(f"the model has {len(inputs)} inputs: expected one, the images")
    [given] = inputs
    if given.type not in ("tensor(uint8)", "tensor(float)"):
        raise ValueError(f"the model takes {given.type}: expected images, tensor(uint8) or, from 0 to 1, tensor(float)")
    fixed = given.shape[0] if isinstance(given.shape[0], int) else 0
    labels = []
    for start in range(0, len(images), fixed or 256):
        batch = images[start : start + (fixed or 256)]
        count = len(batch)
        if fixed > count:  # a model for batches of a fixed size
            batch = np.concatenate([batch, np.repeat(batch[:1], fixed - count, 0)])
        if given.type == "tensor(float)":
            batch = batch.astype(np.float32) / 255
        scores = np.asarray(session.run(None, {given.name: batch})[0])[:count]
        if scores.shape != (count, classes):
            raise ValueError(f"the model returned {scores.shape} for {count} images: expected {(count, classes)}")
        labels.append(scores.argmax(1))
    return np.concatenate(labels)


def _reaches_out(port: int) -> Iterator[bytes]:
    """Yield in words what a leaky sandbox lets a program reach; so do the next two."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            yield b"it has a network. "
    except OSError:  # it has its own loopback, where nothing listens
        pass


def _forks() -> Iterator[bytes]:
    try:
        if os.fork() == 0:
            os._exit(0)
        yield b"it starts processes. "
    except OSError:
        pass


def _writes() -> Iterator[bytes]:
    for folder in ("/", "/tmp", "/dev", "/dev/shm", "/usr", os.path.dirname(sys.executable)):
        try:
            with open(f"{folder}/extractlib-probe", "wb"):
                yield f"it writes to {folder}. ".encode()
            os.remove(f"{folder}/extractlib-probe")
        except OSError:
            pass


if __name__ == "__main__":
    main()
