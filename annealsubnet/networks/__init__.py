"""Networks: the user's own models, with their layers and units found."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from annealsubnet.networks.function_models import from_function
from annealsubnet.networks.layer import Layer, Norm, Window
from annealsubnet.networks.linen_models import from_linen
from annealsubnet.networks.model import Model, Params
from annealsubnet.networks.network import Known, Network, known_of, trace
from annealsubnet.networks.nnx_models import from_nnx
from annealsubnet.networks.sites import Gate, Site, Slot
from annealsubnet.networks.taps import Tap

__all__ = [
    "Gate",
    "Known",
    "Layer",
    "Model",
    "Network",
    "Norm",
    "Params",
    "Site",
    "Slot",
    "Tap",
    "Window",
    "as_model",
    "as_network",
    "from_function",
    "from_linen",
    "from_nnx",
    "known_of",
    "trace",
]


def as_model(model: Any) -> Model:
    """A `Model` of anything that the public functions accept.

    Raises:
        TypeError: if it is neither an `nnx.Module` nor what `from_linen` or `from_function` return.
    """
    if isinstance(model, Model):
        return model
    if isinstance(model, nnx.Module):
        return from_nnx(model)
    raise TypeError(
        f"A model is an nnx.Module, annealsubnet.from_linen(module, variables) or annealsubnet.from_function(apply, params); "
        f"this is a {type(model).__name__}{_wrapped_again(model)}."
    )


def _wrapped_again(model: Any) -> str:
    """What to do with what comes back for a Linen module or a function."""
    if isinstance(model, tuple) and len(model) == 2:
        return ", as shrink returns for Linen: give from_linen(*pair)"
    return (
        ": give from_linen(module, variables) or from_function(apply, params) with these" if isinstance(model, Mapping) else ""
    )


def as_network(model: Any, example: Any = None) -> Network:
    """A traced `Network` of anything that the public functions accept.

    Args:
        model: see `as_model`; a `Network` is returned as it is.
        example: one batch of inputs; by default the model's own example.

    Raises:
        ValueError: if there is no example.
    """
    if isinstance(model, Network):
        return model
    model = as_model(model)
    example = model.example if example is None else example
    if example is None:
        raise ValueError("The layers of a model show only when it runs: give batches, or the model an example of its inputs.")
    return trace(model, example)
