"""What all tests share: a cache of their own, and one thread each."""

import os
import tempfile

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is first imported; the workers share the cores


def pytest_configure(config):
    """Give the whole run one empty cache, so that no test reads or fills the user's."""
    if hasattr(config, "workerinput"):
        return  # a worker inherits the folder from the process that started it
    folder = tempfile.TemporaryDirectory(prefix="extractlib-tests-", ignore_cleanup_errors=True)
    os.environ["EXTRACTLIB_CACHE"] = folder.name
    config.add_cleanup(folder.cleanup)
