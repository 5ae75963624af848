"""Model extraction attacks on image classifiers, and defenses against them.

New readers can take the subpackages in this order: `data` (the images), `models` (victims and their training), `api`
(what is queried), `attacks`, `defenses`.
"""

from importlib.metadata import PackageNotFoundError, version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["api", "attacks", "data", "defenses", "errors", "metrics", "models", "store"],
    submod_attrs={
        "api.client": ["connect"],
        "api": ["Full", "Label", "PredictionAPI", "Rounded", "Temperature", "TopK"],
        "data.images": ["ImageSet", "images"],
        "data.sources": ["Folder", "load"],
        "defenses": ["detectors", "policies"],
        "errors": ["InputError"],
        "evaluation": ["evaluate"],
        "models.classifier": ["Surrogate", "Victim", "load_victim"],
    },
)

try:
    __version__ = version("extractlib")
except PackageNotFoundError:  # not installed, only a folder on the path
    __version__ = "0+unknown"
