"""Measure what a network costs, against the same queries in process, and what response times reveal.

The parts of `extractlib serve` run in this process, on loopback, with the meter in a file on both sides.
"""

import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

import extractlib as xl
from extractlib.api.batching import ServedAPI
from extractlib.api.client import RemoteAPI
from extractlib.api.keys import Keys
from extractlib.api.meter import Meter
from extractlib.api.server import make_app, running
from extractlib.defenses.policies import Shuffle
from extractlib.metrics import auroc

QUERIES = 256
"""Images per request of the single client."""

CLIENTS, EACH = 64, 16
"""Simultaneous clients, and images per request of each."""

PAIRS = 5_000


@contextmanager
def served(api: ServedAPI, folder: Path, teams: int = 1) -> Iterator[list[RemoteAPI]]:
    """Serve an API and yield one client for each of `teams` teams."""
    keys = Keys()
    with running(make_app({"signs": api}, keys)) as url:
        journals = (folder / f"{number}.db" for number in range(teams))
        clients = [xl.connect(url, key=keys.add(f"team {path.stem}"), journal=path) for path in journals]
        try:
            yield clients
        finally:
            for client in clients:
                client.close()


def speed_ratio(ours: Callable[[], object], other: Callable[[], object], *, pairs: int) -> float:
    """Return the median ratio of the other's time to ours, taken in turn; the first pair is not counted."""
    ratios = []
    for _ in range(pairs + 1):
        times = []
        for call in (ours, other):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        ratios.append(times[1] / times[0])
    return statistics.median(ratios[1:])


def one_client(folder: Path, *, pairs: int = 41) -> float:
    """Return the speed of requests of 256 images over the network, as a share of the speed in process."""
    victim, images = xl.load_victim("signs"), xl.load("signs").test.images[:QUERIES]
    near = xl.PredictionAPI(victim, meter=Meter(folder / "near.db"))
    api = ServedAPI(victim, meter=Meter(folder / "far.db"))
    with served(api, folder) as [far]:
        return speed_ratio(
            lambda: far.query(images, request=f"{time.perf_counter_ns()}"), lambda: near.query(images), pairs=pairs
        )


def many_clients(folder: Path, *, pairs: int = 11) -> float:
    """Return the speed of 64 simultaneous clients with 16 images each, as a share of the same requests in process."""
    victim, images = xl.load_victim("signs"), xl.load("signs").test.images[: CLIENTS * EACH]
    near = xl.PredictionAPI(victim, meter=Meter(folder / "near-64.db"))
    api = ServedAPI(victim, meter=Meter(folder / "far-64.db"))
    with served(api, folder, CLIENTS) as clients:

        def together() -> None:
            threads = [
                threading.Thread(target=client.query, args=(part,), kwargs={"request": f"{time.perf_counter_ns()}"})
                for client, part in zip(clients, images.split(EACH), strict=True)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        def alone() -> None:
            for part in images.split(EACH):
                near.query(part)

        return speed_ratio(together, alone, pairs=pairs)


class FirstPixel:
    """A detector that the caller controls: it catches images whose first value is odd."""

    fingerprint = "first pixel"

    def detect(self, images: torch.Tensor) -> torch.Tensor:
        """Return bool of shape (n,)."""
        return images[:, 0, 0, 0] % 2 == 1


def what_time_tells(folder: Path, *, pairs: int = PAIRS) -> tuple[float, float]:
    """Return max(AUROC, 1 - AUROC) of detected and other queries by their latency, and its upper 95% bound.

    The two queries of a pair are one image whose first value differs by one; which is sent first alternates.
    """
    victim, images = xl.load_victim("signs"), xl.load("signs").test.images
    api = ServedAPI(victim, detector=FirstPixel(), policy=Shuffle(b"secret"), meter=Meter(folder / "time.db"))
    latency = torch.empty(pairs, 2)
    with served(api, folder) as [far]:
        for number in range(pairs):
            image = images[number % len(images)][None].clone()
            for odd in (0, 1) if number % 2 else (1, 0):
                image[0, 0, 0, 0] = image[0, 0, 0, 0] // 2 * 2 + odd
                start = time.perf_counter()
                far.query(image, request=f"{number}-{odd}")
                latency[number, odd] = time.perf_counter() - start
    draw = np.random.default_rng(0)
    chosen = [torch.from_numpy(draw.integers(pairs, size=pairs)) for _ in range(200)]
    found = [_folded(latency[rows]) for rows in chosen]
    return _folded(latency), float(np.quantile(found, 0.95))


def _folded(latency: torch.Tensor) -> float:
    area = auroc(latency[:, 0], latency[:, 1])
    return max(area, 1 - area)


def main() -> None:
    """Measure everything and print a line for each result."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        ratio = one_client(Path(place))
        print(f"one client, {QUERIES} images per request: {ratio:.2f} of the speed in process (goal 0.80)", flush=True)
        ratio = many_clients(Path(place))
        print(
            f"{CLIENTS} clients, {EACH} images per request: {ratio:.2f} of the speed in process (goal 0.70)", flush=True
        )
        area, bound = what_time_tells(Path(place))
        print(f"latency of detected queries: AUROC {area:.3f}, at most {bound:.3f} (goal 0.55)", flush=True)


if __name__ == "__main__":
    main()
