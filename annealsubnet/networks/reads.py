"""Who reads a parameter, read from one traced jaxpr.

All that is said of a layer z = a · W + bias rests on W being the parameter itself and on nobody else reading it. Weights that
are normalized before they are multiplied (weight or spectral norm), or that are also an embedding or a decoder, are seen here:
their parameter enters some equation outside of the layer's taps.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jax.extend.core import Jaxpr, Literal

from annealsubnet.networks.jaxprs import subprogram
from annealsubnet.networks.layer import Layer, Norm
from annealsubnet.networks.taps import tap_in_p, tap_out_p

# The same numbers after these, in another type or order.
_HANDED_ON_NAMES = """
    broadcast_in_dim convert_element_type copy copy_p device_put expand_dims name reduce_precision reshape sharding_constraint
    squeeze transpose
"""
_HANDED_ON = frozenset(_HANDED_ON_NAMES.split())


def check_reads(jaxpr: Jaxpr, paths: Iterable[str], owners: Iterable[Layer | Norm]) -> None:
    """Raise unless every layer and BatchNorm is alone in reading its parameters.

    Args:
        jaxpr: of the whole model.
        paths: of its parameters, which are its first arguments.
        owners: the layers and BatchNorms.

    Raises:
        ValueError: naming the layer and the parameter.
    """
    owner_of: dict[str, Layer | Norm] = {}
    for owner in owners:
        leaves = (owner.kernel, owner.bias) if isinstance(owner, Layer) else (owner.scale, owner.bias)
        owner_of.update(dict.fromkeys((path for path in leaves if path is not None), owner))
    for path, reader, primitive in _reads(jaxpr, dict(zip(jaxpr.invars, paths, strict=False)), []):
        if path in owner_of and reader != owner_of[path].name:
            raise ValueError(
                f"Parameter {path!r} of layer {owner_of[path].name!r} is also read outside of it, by {primitive!r}: weights "
                "that are normalized or changed before they are multiplied, or used twice, are not supported."
            )


def _reads(jaxpr: Jaxpr, path_of: Mapping[Any, str], inside: list[str]) -> Iterator[tuple[str, str | None, str]]:
    """(parameter, the layer whose taps stand around it, primitive) of every equation that computes with a parameter."""
    known = dict(path_of)
    for equation in jaxpr.eqns:
        if equation.primitive is tap_in_p:
            inside.append(equation.params["spec"].name)
        elif equation.primitive is tap_out_p:
            inside.pop()
        found = [None if isinstance(atom, Literal) else known.get(atom) for atom in equation.invars]
        inner = subprogram(equation)
        if inner is not None:
            yield from _reads(
                inner.jaxpr, {var: path for var, path in zip(inner.jaxpr.invars, found, strict=True) if path}, inside
            )
        elif equation.primitive.name in _HANDED_ON and found[0] is not None:
            known[equation.outvars[0]] = found[0]
        else:
            for path in found:
                if path is not None:
                    yield path, inside[-1] if inside else None, equation.primitive.name
