"""Images: sets of them, where they come from, and what is done to them.

Examples:
    >>> import extractlib as xl
    >>> len(xl.data.drawn.draw("signs", part="test", size=4, seed=0))
    4
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        *("decoding", "download", "drawn", "files", "groups", "images", "layouts", "pixels", "sets", "sources"),
        *("splits", "tables", "transforms"),
    ],
)
