"""Networks, their training, and the models made from them.

Examples:
    >>> import extractlib as xl
    >>> xl.models.networks.build("resnet", classes=10, seed=0).head.out_features
    10
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["activations", "classifier", "devices", "fitted", "lite", "networks", "training"],
    submod_attrs={"fitted": ["Trainer"], "training": ["Recipe", "fit", "learning_rate", "predict"]},
)
