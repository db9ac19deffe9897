"""Methods: the functions that the command compares, by name.

`annealed` is `annealsubnet.prune`; the others are the baselines, which are called the same way.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from annealsubnet.cli.refusals import Refusal
from annealsubnet.report import ANNEALED

Method = Callable[..., Any]

NOT_FOR: Mapping[str, tuple[str, ...]] = {"activation": ("weight",)}
"""Methods that can't choose a unit; they are left out for it unless asked for."""


def known_methods() -> Mapping[str, Method]:
    """Every method by name, ours first."""
    from annealsubnet import baselines, prune

    return {ANNEALED: prune, **baselines.METHODS}


def chosen_methods(known: Mapping[str, Method], unit: str, asked: Sequence[str]) -> Mapping[str, Method]:
    """The methods to compare.

    Args:
        known: all there are.
        unit: what they must be able to choose.
        asked: their names; all that can choose the unit if empty.

    Returns:
        Name to function, in the order asked.

    Raises:
        Refusal: There is no such method.
    """
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise Refusal(f"There is no method {unknown[0]!r}; use one or more of {', '.join(known)}.")
    names = dict.fromkeys(asked) if asked else [name for name in known if unit not in NOT_FOR.get(name, ())]
    return {name: known[name] for name in names}
