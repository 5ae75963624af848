"""Attacks: small objects that get their settings when created, and the API and the images when they run.

Examples:
    >>> import extractlib as xl
    >>> xl.attacks.Knockoff(budget=3, seed=0).indices(10).tolist()
    [1, 4, 3]
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["adaptive", "jacobian", "knockoff", "own_images", "transfer", "twice"],
    submod_attrs={
        "adaptive": ["AdaptiveKnockoff"],
        "jacobian": ["jacobian_augmentation"],
        "knockoff": ["API", "Knockoff", "OutOfBudget"],
        "own_images": ["train_alone"],
        "transfer": ["TransferSet"],
        "twice": ["TwiceKnockoff"],
    },
)
