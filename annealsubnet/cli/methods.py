"""Methods: the functions that the command compares, by name.

`annealed` is `annealsubnet.prune`; the others are the baselines, which are called the same way.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from annealsubnet.cli.refusals import Refusal
from annealsubnet.report import ANNEALED

Method = Callable[..., Any]

ONLY_FOR: Mapping[str, tuple[str, ...]] = {"mean_activation": ("neuron",)}
"""Methods that can't choose every unit."""


def known_methods() -> Mapping[str, Method]:
    """Every method by name, ours first."""
    from annealsubnet import baselines, prune

    return {ANNEALED: prune, **baselines.METHODS}


def chosen_methods(known: Mapping[str, Method], units: Sequence[str], asked: Sequence[str]) -> Mapping[str, Method]:
    """The methods to compare.

    Args:
        known: all there are.
        units: what they must be able to choose.
        asked: their names; all that can choose the units if empty.

    Returns:
        Name to function, in the order asked.

    Raises:
        Refusal: There is no such method.
    """
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise Refusal(f"There is no method {unknown[0]!r}; use one or more of {', '.join(known)}.")
    return {name: known[name] for name in (dict.fromkeys(asked) if asked else known)}
