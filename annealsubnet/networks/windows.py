"""The window of a Flax convolution, in the terms of `jax.lax`."""

from collections.abc import Sequence

from annealsubnet.networks.layer import Padding

_NAMED = ("SAME", "VALID", "CIRCULAR", "REFLECT", "CAUSAL")


def per_axis(value: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """One number for each spatial axis, from Flax's shorthands."""
    if value is None:
        return (1,) * rank
    return (value,) * rank if isinstance(value, int) else tuple(value)


def canonical_padding(padding: str | int | Sequence[int | tuple[int, int]], rank: int, name: str) -> Padding:
    """A padding by name, or a pair for each spatial axis.

    Raises:
        ValueError: for a padding that is neither, with the layer's name.
    """
    if isinstance(padding, str):
        if padding.upper() not in _NAMED:
            raise ValueError(f"Conv {name!r} has padding {padding!r}; supported are {', '.join(_NAMED)} and numbers.")
        return padding.upper()
    widths: Sequence[int | tuple[int, int]] = (padding,) * rank if isinstance(padding, int) else padding
    return tuple((width, width) if isinstance(width, int) else (width[0], width[1]) for width in widths)
