"""What ten times the budget would buy, predicted from runs that were paid for."""

import numpy as np

from extractbook.exercises.exercise import SEEDS, Exercise

BUDGETS, LARGE, WITHIN = (500, 1_000, 2_000, 4_000, 8_000), 80_000, 0.01


def curves(seed: int) -> list[tuple]:
    """Return budgets, the recoveries measured at them, and a budget ten times the largest."""
    return [(list(BUDGETS), measured, LARGE) for measured, _ in _drawn(seed)]


def _drawn(seed: int) -> list[tuple[list[float], float]]:
    generator, drawn = np.random.default_rng(seed), []
    for _ in range(40):
        limit, loss, power = generator.uniform(0.8, 1.0), generator.uniform(0.3, 0.6), generator.uniform(0.25, 0.6)
        at = np.array([*BUDGETS, LARGE]) / BUDGETS[0]
        values = limit - loss * at**-power
        drawn.append(((values[:-1] + 0.001 * generator.standard_normal(len(BUDGETS))).tolist(), float(values[-1])))
    return drawn


def share_near(found: list, wanted: list, cases: list[tuple]) -> tuple[float, str]:
    """Return the share of curves whose prediction is near the true value, and the name of this number."""
    near = np.abs(np.array(found) - np.array(wanted)) <= WITHIN
    return float(near.mean()), f"the share of curves predicted to within {WITHIN}"


EXERCISE = Exercise(
    id="11.A",
    title="Ten times the money",
    kind="attack or defend",
    minutes=25,
    variants={"seed": SEEDS},
    cases=curves,
    key=lambda seed: [value for _, value in _drawn(seed)],
    score=share_near,
    marks=(0.2, 0.8),
)
