"""Layers: the linear maps of a network whose weights and neurons can be selected.

Every layer is a matrix product in disguise. A Dense layer multiplies its input a ∈ R^d by a kernel; a convolution multiplies
each of its patches by one. `Layer.patches` writes the input of any layer as `[vectors, groups, fan_in]` and `Layer.matrix` its
kernel as `[groups, fan_in, outputs per group]`, so that everything downstream sees z = a · W and nothing else.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Padding = str | tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Window:
    """How a convolution slides: all per spatial dimension, as `jax.lax.conv_general_dilated` takes them."""

    size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: Padding
    input_dilation: tuple[int, ...]
    kernel_dilation: tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """One Dense or Conv layer.

    Attributes:
        name: path of the module, "/"-joined.
        kernel: path of its kernel among the parameters.
        bias: path of its bias, None if it has none.
        shape: the kernel's own shape, inputs first (`[*inputs, *outputs]` or `[*window, inputs per group, outputs]`).
        num_input_axes: how many leading axes of the kernel are inputs (the window's axes included).
        groups: number of independent groups of channels (1 unless a grouped or depthwise convolution).
        window: of a convolution, None for a Dense layer.
    """

    name: str
    kernel: str
    bias: str | None
    shape: tuple[int, ...]
    num_input_axes: int
    groups: int = 1
    window: Window | None = None

    @property
    def geometry(self) -> "Layer":
        """The same map under no name: layers of one geometry share compiled programs."""
        return replace(self, name="", kernel="", bias=None)

    @property
    def fan_in(self) -> int:
        """How many weights feed one neuron."""
        return prod(self.shape[: self.num_input_axes])

    @property
    def outputs(self) -> int:
        """How many neurons the layer has."""
        return prod(self.shape[self.num_input_axes :])

    @property
    def num_output_axes(self) -> int:
        """How many trailing axes of the kernel, and of the layer's output, number its neurons."""
        return len(self.shape) - self.num_input_axes

    @property
    def num_channel_axes(self) -> int:
        """How many trailing axes of the layer's *input* it contracts at every position."""
        return 1 if self.window is not None else self.num_input_axes

    @property
    def depthwise(self) -> bool:
        """True for a grouped convolution with one input channel a group: it acts on channels one by one."""
        return self.window is not None and self.groups > 1 and self.shape[-2] == 1

    def matrix(self, kernel: Any) -> Any:
        """The kernel as `[groups, fan_in, outputs per group]` (a view where the array allows it)."""
        per_group = kernel.reshape(self.fan_in, self.groups, self.outputs // self.groups)
        return per_group.transpose(1, 0, 2)

    def from_matrix(self, matrix: Any) -> Any:
        """The kernel, in its own shape, of a `[groups, fan_in, outputs per group]` array."""
        return matrix.transpose(1, 0, 2).reshape(self.shape)

    def weight_matrix(self, params: Mapping[str, Any]) -> Float[np.ndarray, "groups fan_in outputs"]:
        """The layer's kernel as float64."""
        return np.asarray(self.matrix(np.asarray(params[self.kernel], np.float64)))

    def bias_matrix(self, params: Mapping[str, Any]) -> Float[np.ndarray, "groups outputs"]:
        """The layer's bias as float64, zero if it has none."""
        shape = (self.groups, self.outputs // self.groups)
        return np.zeros(shape) if self.bias is None else np.asarray(params[self.bias], np.float64).reshape(shape)

    def inputs_of_channels(self, channels: np.ndarray) -> np.ndarray:
        """Spread one number for each input channel over the fan-in.

        Args:
            channels: `[channels]`, one value for each input channel (all groups').

        Returns:
            `[groups, fan_in]`: the value of the channel that each input of the kernel reads.
        """
        per_group = channels.reshape(self.groups, 1, -1)
        window = 1 if self.window is None else prod(self.window.size)
        return np.broadcast_to(per_group, (self.groups, window, per_group.shape[-1])).reshape(self.groups, self.fan_in)

    def patches(self, inputs: Float[Array, "..."]) -> Float[Array, "vectors groups fan_in"]:
        """The input vectors that the layer multiplies: one for each example and position.

        Args:
            inputs: what the layer was called with, channels last.
        """
        if self.window is None:
            return inputs.reshape(-1, 1, self.fan_in)
        rank = len(self.window.size)
        images = inputs.reshape(-1, *inputs.shape[-rank - 1 :])
        images, padding = self._pad(images)
        channels = images.shape[-1]
        pieces = jnp.concatenate(list(self._shifted(images, padding)), axis=-1)
        if self.groups == 1:
            return pieces.reshape(-1, 1, self.fan_in)
        vectors = pieces.reshape(-1, prod(self.window.size), self.groups, channels // self.groups)
        return vectors.transpose(0, 2, 1, 3).reshape(-1, self.groups, self.fan_in)

    def _shifted(self, images: Array, padding: Any) -> Iterator[Array]:
        """What each offset of the window reads, at every position: slices, with which second moments take .6 to .8 of the
        time that they take with `jax.lax.conv_general_dilated_patches` on a CPU."""
        window = self.window
        assert window is not None
        dilated = [(size - 1) * apart + 1 for size, apart in zip(images.shape[1:-1], window.input_dilation, strict=True)]
        spans = [(size - 1) * apart + 1 for size, apart in zip(window.size, window.kernel_dilation, strict=True)]
        if isinstance(padding, str):
            padding = jax.lax.padtype_to_pads(dilated, spans, window.strides, padding)
        config = [(low, high, apart - 1) for (low, high), apart in zip(padding, window.input_dilation, strict=True)]
        padded = jax.lax.pad(images, jnp.zeros((), images.dtype), [(0, 0, 0), *config, (0, 0, 0)])
        steps = [(size - span) // stride for size, span, stride in zip(padded.shape[1:-1], spans, window.strides, strict=True)]
        for offset in np.ndindex(*window.size):
            first = [place * apart for place, apart in zip(offset, window.kernel_dilation, strict=True)]
            last = [low + step * stride + 1 for low, step, stride in zip(first, steps, window.strides, strict=True)]
            limits = (padded.shape[0], *last, padded.shape[-1])
            yield jax.lax.slice(padded, (0, *first, 0), limits, (1, *window.strides, 1))

    def _pad(self, images: Array) -> tuple[Array, Any]:
        """Flax pads by hand where `lax` has no name for it; so do we."""
        window = self.window
        assert window is not None
        spans = [(size - 1) * dilation for size, dilation in zip(window.size, window.kernel_dilation, strict=True)]
        if window.padding in ("CIRCULAR", "REFLECT"):
            mode = "wrap" if window.padding == "CIRCULAR" else "reflect"
            widths = [(0, 0), *((span // 2, (span + 1) // 2) for span in spans), (0, 0)]
            return jnp.pad(images, widths, mode=mode), "VALID"
        if window.padding == "CAUSAL":
            return jnp.pad(images, [(0, 0), (spans[0], 0), (0, 0)]), "VALID"
        return images, window.padding


@dataclass(frozen=True)
class Norm:
    """A BatchNorm in evaluation mode: an affine map of each channel.

    Attributes:
        name: path of the module.
        scale, bias: paths of its parameters, None where it has none.
    """

    name: str
    scale: str | None
    bias: str | None


@dataclass(frozen=True)
class Normalization:
    """A LayerNorm, RMSNorm or GroupNorm: it couples the channels of one example.

    Attributes:
        name: path of the module.
        kind: its class, for messages.
    """

    name: str
    kind: str
