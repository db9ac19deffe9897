"""Methods: the functions that the command compares, by name.

`annealed` is `annealsubnet.prune`; the others are the baselines, which are called the same way.
"""

import ast
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from importlib import import_module
from inspect import signature
from typing import Any

from annealsubnet.cli.refusals import Refusal
from annealsubnet.report import ANNEALED

Method = Callable[..., Any]

_OF_WEIGHTS = (
    "wanda", "sparsegpt", "obc", "forward", "alps", "sparse-swaps", "woodfisher", "surgeon", "zero-swaps", "chita", "gradual",
)  # fmt: skip
NOT_FOR: Mapping[str, tuple[str, ...]] = {
    "activation": ("weight",),
    "osscar": ("weight",),
    **dict.fromkeys(_OF_WEIGHTS, ("neuron", "head")),
}
"""Methods that can't choose a unit; they are left out for it, and refused if asked for."""

UNITS = ("neuron", "weight")
"""Compared where none is named."""

KEEP_BLOCKS = (ANNEALED, "magnitude")
"""Methods whose patterns may be of blocks; the others that keep patterns keep N:M."""

SAMPLERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "annealer": ("annealsubnet.solvers:Annealer", {}),
    "simulated-annealing": ("dwave.samplers:SimulatedAnnealingSampler", {}),
    "tabu": ("dwave.samplers:TabuSampler", {"timeout": 5}),
    "steepest-descent": ("dwave.samplers:SteepestDescentSolver", {}),
    "exact": ("dimod:ExactSolver", {}),
}
"""Name to module and class, and options of its own. Tabu search always uses up its time, by default 100 ms; there are thousands
of problems."""


def known_methods(sampler: Any = None, options: Sequence[str] = (), *, polish: int | None = None) -> Mapping[str, Method]:
    """Every method by name, ours first.

    Args:
        sampler: name of the one that `annealed` solves with, or the sampler itself; the package's choice if `None`.
        options: its options, as "name=value".
        polish: as in `annealsubnet.prune`, whose own it is if `None`.

    Returns:
        Name to function.

    Raises:
        Refusal: There is no such sampler, or an option can't be read.
    """
    from annealsubnet import baselines, prune

    annealed: Method = prune if polish is None else partial(prune, polish=polish)
    if sampler is not None:
        made, own = _sampler(sampler)
        annealed = partial(annealed, sampler=made, sampler_options={**own, **dict(map(_option, options))})
    elif options:
        raise Refusal(f"--sampler-option {options[0]} needs --sampler; use one of {', '.join(SAMPLERS)}.")
    return {ANNEALED: annealed, **baselines.METHODS, **baselines.ON_REQUEST}


def _sampler(name: Any) -> tuple[Any, Mapping[str, Any]]:
    """The sampler of that name and its options, or one made already."""
    if not isinstance(name, str):
        return name, {}
    if name not in SAMPLERS:
        raise Refusal(f"There is no sampler {name!r}; use one of {', '.join(SAMPLERS)}, leap.")
    path, options = SAMPLERS[name]
    module, _, kind = path.partition(":")
    return getattr(import_module(module), kind)(), options


def _option(text: str) -> tuple[str, Any]:
    """Name and value of "name=value"; a value that is no Python literal is a word."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise Refusal(f"--sampler-option {text!r} can't be read; write NAME=VALUE, such as num_reads=20.")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def patterned(methods: Mapping[str, Method], pattern: str, asked: Sequence[str]) -> Mapping[str, Method]:
    """The methods that can keep a pattern, told to.

    Args:
        methods: by name.
        pattern: as `annealsubnet.patterns.parse_pattern` reads it.
        asked: names of those that the user named.

    Returns:
        Name to a function that is called as before; where the pattern says how much stays, its `keep` is not read.

    Raises:
        Refusal: A method that was asked for can't.
    """
    from annealsubnet.patterns import parse_pattern

    says_keep = not parse_pattern(pattern).is_block
    able = {name: method for name, method in methods.items() if "pattern" in signature(method).parameters}
    if not says_keep:
        able = {name: method for name, method in able.items() if name in KEEP_BLOCKS}
    unable = [name for name in asked if name in methods and name not in able]
    if unable:
        raise Refusal(f"The method {unable[0]} can't keep the pattern {pattern}; use one or more of {', '.join(able)}.")

    def told(method: Method) -> Method:
        @wraps(method)
        def run(*arguments: Any, keep: Any, **options: Any) -> Any:
            return method(*arguments, keep=None if says_keep else keep, pattern=pattern, **options)

        return run

    return {name: told(method) for name, method in able.items()}


def default_units(asked: Sequence[str]) -> tuple[str, ...]:
    """The units to compare where none is named: those that all methods asked for can choose.

    Raises:
        Refusal: There is none.
    """
    units = tuple(unit for unit in UNITS if not any(unit in NOT_FOR.get(name, ()) for name in asked))
    if not units:
        raise Refusal(f"{', '.join(asked)} choose no unit in common; compare those for weights and those for neurons apart.")
    return units


def chosen_methods(known: Mapping[str, Method], unit: str, asked: Sequence[str]) -> Mapping[str, Method]:
    """The methods to compare.

    Args:
        known: all there are.
        unit: what they must be able to choose.
        asked: their names; if empty all that can choose the unit, without those that are compared on request only.

    Returns:
        Name to function, in the order asked.

    Raises:
        Refusal: There is no such method, or it can't choose the unit.
    """
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise Refusal(f"There is no method {unknown[0]!r}; use one or more of {', '.join(known)}.")
    unable = [name for name in asked if unit in NOT_FOR.get(name, ())]
    if unable:
        raise Refusal(f"The method {unable[0]} can't choose {unit}s; leave it out of --method, or {unit} out of --unit.")
    names = dict.fromkeys(asked) if asked else [name for name in known if _is_default(name, unit)]
    return {name: known[name] for name in names}


def _is_default(name: str, unit: str) -> bool:
    """Whether a method is compared where none is named."""
    from annealsubnet.baselines import ON_REQUEST

    return name not in ON_REQUEST and unit not in NOT_FOR.get(name, ())
