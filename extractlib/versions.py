"""Versions of the behaviors that numbers depend on: a row or an artifact is as current as the keys that it uses.

A behavior is versioned, not the text of its code. Rewording a message, renaming a variable or adding a network changes
no version. A change that alters a number needs the next version of its key, which makes exactly the rows that use it
stale. The canaries (``tests/canaries.py``) fail if a number has changed but its version has not.
"""

from collections.abc import Mapping

from extractlib.errors import InputError, check_choice

VERSIONS: Mapping[str, int] = {
    "numerics": 1,  # torch and numpy as the lock pins them
    "drawn": 4,  # pixels and labels of the drawn sets
    "decode": 3,  # listing and decoding of image files, near-duplicates, how files are cut
    "transform": 1,  # saving, resizing, blurring; the shifted source of images in files
    "split": 1,  # parts, subsets, mixtures, cut pools, noise
    "network": 2,  # architectures, their initial weights, what they compute
    "backbone": 2,  # pre-training, and the shipped weights
    "train": 1,  # the training loop, its schedules, prediction
    "augment": 1,  # shifts, flips, crops
    "api": 1,  # granularity, answers, charges
    "knockoff": 1,  # choice of queries, the transfer set, the surrogate's targets
    "adaptive": 2,  # bandit, rewards, online surrogate
    "control": 1,  # the model that sends no queries
    "detect": 2,  # detectors of single queries and their thresholds
    "policy": 1,  # how a detected query is answered
    "accounts": 2,  # detectors of accounts, Sybil accounts
    "watermark": 1,  # which queries are marked, and how
    "ownership": 1,  # dataset inference
    "metrics": 1,  # accuracy, recovery, TPR, TNR, intervals
    "experiment": 2,  # which cells share what, and what a row holds
}
"""The version of each behavior."""


def versions(*keys: str) -> dict[str, int]:
    """Return the versions of the named behaviors and that of the numerics, by key in the order of `VERSIONS`.

    Args:
        keys: Some keys of `VERSIONS`.

    Raises:
        InputError: A key is unknown.
    """
    for key in keys:
        check_choice("version key", key, VERSIONS)
    return {key: number for key, number in VERSIONS.items() if key in (*keys, "numerics")}


def later(**first: int) -> tuple[str, ...]:
    """Return what a fingerprint must include about behaviors with a version above the one at which it was first given.

    A fingerprint thus changes with the behavior, while fingerprints given before stay the same.

    Args:
        first: By key of `VERSIONS`, the version for which nothing is returned.
    """
    return tuple(f"{key} {VERSIONS[key]}" for key, number in first.items() if VERSIONS[key] > number)


def check_keys(found: Mapping[str, object], where: str) -> None:
    """Refuse versions that this code cannot have made.

    Args:
        found: Versions by key, as a row or a canary stores them.
        where: What stores them and how to fix it, for the message.

    Raises:
        InputError: A key is unknown, or its version is not a whole number or is later than in `VERSIONS`.
    """
    if not isinstance(found, Mapping) or not found:
        raise InputError(f"{where}: it names no versions")
    for key, number in found.items():
        if key not in VERSIONS:
            raise InputError(f"{where}: unknown version key {key!r}: use one of {', '.join(VERSIONS)}")
        if type(number) is not int or not 1 <= number <= VERSIONS[key]:
            raise InputError(f"{where}: version {number!r} of {key!r}, but this code has 1 to {VERSIONS[key]}")
