"""Rows of a made-up comparison: two units, two methods, two seeds, own weights and refitted."""

import pytest

from annealsubnet.report import DENSE, Row


def row(unit: str, keep: float | int, method: str, seed: int, refit: bool, accuracy: float, kept: int = 10) -> Row:
    distance = 0.0 if method == DENSE else 1.0 - refit / 2
    return Row(unit, keep, method, seed, refit, kept, 40, accuracy, 0.5, distance, 200, 30, 50, 100, 0.1, 0.2, 0.3)


@pytest.fixture
def rows() -> tuple[Row, ...]:
    """Refitted, ours is better; with own weights, the other one is. All networks are nearer to the dense one when refitted."""
    made = []
    for seed in (0, 1):
        made.append(row("", 1.0, DENSE, seed, False, 0.97 + 0.01 * seed))
        for unit in ("neuron", "weight"):
            for keep, kept, loss in ((0.5, 20, 0.002), (0.25, 10, 0.05)):
                for method, worse in (("annealed", 0.0), ("magnitude", 0.1)):
                    for refit in (False, True):
                        accuracy = 0.97 - loss - worse if refit else 0.6 - loss + worse
                        made.append(row(unit, keep, method, seed, refit, accuracy + 0.01 * seed, kept))
    return tuple(made)
