"""Attacks: small objects whose settings are given when they are made, and the API and the images when they run."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["adaptive", "knockoff", "own_images", "transfer", "twice"],
    submod_attrs={
        "adaptive": ["AdaptiveKnockoff"],
        "knockoff": ["API", "Knockoff"],
        "own_images": ["train_alone"],
        "transfer": ["TransferSet"],
        "twice": ["TwiceKnockoff"],
    },
)
