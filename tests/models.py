"""Small networks, each with the same weights as an NNX module, a Linen module and a plain function."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.traverse_util import unflatten_dict

from annealsubnet.networks import Model, Network, as_network, from_function, from_linen
from annealsubnet.statistics.moments import Regression, targeted_regression
from annealsubnet.statistics.targets import targets_from_start
from annealsubnet.trees import flatten, map_leaves


@dataclass(frozen=True, eq=False)
class Example:
    """One network in three forms, and inputs for it."""

    nnx: nnx.Module
    linen: Model
    function: Model
    inputs: np.ndarray

    @cached_property
    def outputs(self) -> np.ndarray:
        """The network's own outputs, by its own NNX module."""
        return np.asarray(nnx.jit(lambda model, x: model(x))(self.nnx, self.inputs))

    @cache  # noqa: B019 - as long as the tests run
    def network(self, form: str = "nnx") -> Network:
        return as_network(self.forms[form], self.inputs)

    @cache  # noqa: B019 - as long as the tests run
    def recorded(self, form: str = "nnx") -> tuple[Any, dict[str, Any]]:
        """The outputs, and what passes each layer, of a run at the taps."""
        network = self.network(form)
        return jax.jit(lambda params, x: network.run(params, x, record=network.layers))(network.params, self.inputs)

    @property
    def forms(self) -> dict[str, Any]:
        return {"nnx": self.nnx, "linen": self.linen, "function": self.function}


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    return unflatten_dict({tuple(path.split("/")): leaf for path, leaf in flat.items()})


def build(kind: Callable[[nnx.Rngs], nnx.Module], seed: int = 0) -> nnx.Module:
    """A model in evaluation mode with random weights, biases, scales and statistics, without compiling its initializers."""
    graph, state = nnx.split(nnx.eval_shape(lambda: kind(nnx.Rngs(0))))
    generator = np.random.default_rng(seed)

    def fill(path: str, leaf: Any) -> jax.Array:
        fan_in = np.prod(leaf.shape[:-1]) if path.endswith("kernel") else 1
        values = generator.normal(size=leaf.shape) / np.sqrt(fan_in)
        return jnp.asarray(np.abs(values) + 0.2 if path.endswith("var") else values, leaf.dtype)

    model = nnx.merge(graph, map_leaves(fill, state))
    model.eval()
    return model


def example(
    kind: Callable[[nnx.Rngs], nnx.Module], module: nn.Module, apply: Callable[..., Any], shape: tuple[int, ...]
) -> Example:
    """The three forms with the NNX model's weights; `apply(stats, params, inputs, tap)`."""
    model = build(kind)
    params = flatten(nnx.state(model, nnx.Param))
    stats = flatten(nnx.state(model, nnx.BatchStat))
    variables = {"params": unflatten(params)} | ({"batch_stats": unflatten(stats)} if stats else {})
    inputs = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    linen = from_linen(module, variables, example=inputs)
    function = from_function(lambda tree, x, tap: apply(stats, tree, x, tap), unflatten(params), example=inputs)
    return Example(model, linen, function, inputs)


class Classifier(nnx.Module):
    """Two layers, from 6 inputs to 3 classes."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.first = nnx.Linear(6, 9, rngs=rngs)
        self.out = nnx.Linear(9, 3, rngs=rngs)

    def __call__(self, inputs):
        return self.out(nnx.relu(self.first(inputs)))


class NnxMlp(nnx.Module):
    def __init__(self, activations: tuple[Any, Any], rngs: nnx.Rngs):
        self.fc1, self.fc2, self.out = nnx.Linear(6, 8, rngs=rngs), nnx.Linear(8, 7, rngs=rngs), nnx.Linear(7, 3, rngs=rngs)
        self.activations = activations

    def __call__(self, x):
        first, second = self.activations
        return self.out(second(self.fc2(first(self.fc1(x)))))


class LinenMlp(nn.Module):
    activations: tuple[Any, Any]

    @nn.compact
    def __call__(self, x):
        first, second = self.activations
        x = first(nn.Dense(8, name="fc1")(x))
        return nn.Dense(3, name="out")(second(nn.Dense(7, name="fc2")(x)))


def mlp(activations: tuple[Any, Any] = (jax.nn.relu, jnp.tanh)) -> Example:
    first, second = activations

    def apply(_stats, _params, x, tap):
        return tap.dense("out", second(tap.dense("fc2", first(tap.dense("fc1", x)))))

    return example(lambda rngs: NnxMlp(activations, rngs), LinenMlp(activations), apply, (5, 6))


def normed(tap, stats, name, x):
    return tap.batch_norm(name, x, mean=stats[f"{name}/mean"], var=stats[f"{name}/var"])


def linen_norm(name):
    return nn.BatchNorm(use_running_average=True, name=name)


class NnxCnn(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(2, 4, (3, 3), use_bias=False, rngs=rngs)
        self.bn1 = nnx.BatchNorm(4, rngs=rngs)
        self.conv2 = nnx.Conv(4, 5, (2, 2), strides=2, padding="VALID", rngs=rngs)
        self.out = nnx.Linear(2 * 2 * 5, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.max_pool(nnx.relu(self.bn1(self.conv1(x))), (2, 2), strides=(2, 2))
        x = nnx.relu(self.conv2(x))
        return self.out(x.reshape(x.shape[0], -1))


class LinenCnn(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = linen_norm("bn1")(nn.Conv(4, (3, 3), use_bias=False, name="conv1")(x))
        x = nn.max_pool(nn.relu(x), (2, 2), strides=(2, 2))
        x = nn.relu(nn.Conv(5, (2, 2), strides=2, padding="VALID", name="conv2")(x))
        return nn.Dense(3, name="out")(x.reshape((x.shape[0], -1)))


def cnn() -> Example:
    def apply(stats, _params, x, tap):
        x = jax.nn.relu(normed(tap, stats, "bn1", tap.conv("conv1", x)))
        x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = jax.nn.relu(tap.conv("conv2", x, strides=2, padding="VALID"))
        return tap.dense("out", x.reshape(x.shape[0], -1))

    return example(NnxCnn, LinenCnn(), apply, (5, 8, 8, 2))


class NnxBlock(nnx.Module):
    def __init__(self, fan_in: int, channels: int, stride: int, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(fan_in, channels, (3, 3), stride, use_bias=False, rngs=rngs)
        self.bn1 = nnx.BatchNorm(channels, rngs=rngs)
        self.conv2 = nnx.Conv(channels, channels, (3, 3), use_bias=False, rngs=rngs)
        self.bn2 = nnx.BatchNorm(channels, rngs=rngs)
        self.projected = fan_in != channels
        if self.projected:
            self.shortcut = nnx.Conv(fan_in, channels, (1, 1), stride, rngs=rngs)

    def __call__(self, x):
        y = self.bn2(self.conv2(nnx.relu(self.bn1(self.conv1(x)))))
        return nnx.relu(y + (self.shortcut(x) if self.projected else x))


class NnxResidual(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.stem = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.first = NnxBlock(4, 4, 1, rngs)
        self.second = NnxBlock(4, 6, 2, rngs)
        self.out = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        return self.out(self.second(self.first(nnx.relu(self.stem(x)))).mean(axis=(1, 2)))


class LinenBlock(nn.Module):
    channels: int
    stride: int
    projected: bool

    @nn.compact
    def __call__(self, x):
        y = nn.Conv(self.channels, (3, 3), self.stride, use_bias=False, name="conv1")(x)
        y = nn.Conv(self.channels, (3, 3), use_bias=False, name="conv2")(nn.relu(linen_norm("bn1")(y)))
        if self.projected:
            x = nn.Conv(self.channels, (1, 1), self.stride, name="shortcut")(x)
        return nn.relu(linen_norm("bn2")(y) + x)


class LinenResidual(nn.Module):
    def setup(self):
        self.stem = nn.Conv(4, (3, 3))
        self.first, self.second = LinenBlock(4, 1, False), LinenBlock(6, 2, True)
        self.out = nn.Dense(3)

    def __call__(self, x):
        return self.out(self.second(self.first(nn.relu(self.stem(x)))).mean(axis=(1, 2)))


def residual() -> Example:
    def block(stats, tap, name, x, stride, projected):
        y = jax.nn.relu(normed(tap, stats, f"{name}/bn1", tap.conv(f"{name}/conv1", x, strides=stride)))
        y = normed(tap, stats, f"{name}/bn2", tap.conv(f"{name}/conv2", y))
        return jax.nn.relu(y + (tap.conv(f"{name}/shortcut", x, strides=stride) if projected else x))

    def apply(stats, _params, x, tap):
        x = block(stats, tap, "first", jax.nn.relu(tap.conv("stem", x)), 1, False)
        return tap.dense("out", block(stats, tap, "second", x, 2, True).mean(axis=(1, 2)))

    return example(NnxResidual, LinenResidual(), apply, (5, 6, 6, 2))


class NnxSeparable(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.stem = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.depthwise = nnx.Conv(4, 8, (3, 3), feature_group_count=4, rngs=rngs)
        self.bn = nnx.BatchNorm(8, rngs=rngs)
        self.pointwise = nnx.Conv(8, 6, (1, 1), rngs=rngs)
        self.out = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.bn(self.depthwise(nnx.relu(self.stem(x)))))
        return self.out(nnx.relu(self.pointwise(x)).mean(axis=(1, 2)))


class LinenSeparable(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), name="stem")(x))
        x = nn.relu(linen_norm("bn")(nn.Conv(8, (3, 3), feature_group_count=4, name="depthwise")(x)))
        return nn.Dense(3, name="out")(nn.relu(nn.Conv(6, (1, 1), name="pointwise")(x)).mean(axis=(1, 2)))


def separable() -> Example:
    def apply(stats, _params, x, tap):
        x = tap.conv("depthwise", jax.nn.relu(tap.conv("stem", x)), groups=4)
        x = jax.nn.relu(tap.conv("pointwise", jax.nn.relu(normed(tap, stats, "bn", x))))
        return tap.dense("out", x.mean(axis=(1, 2)))

    return example(NnxSeparable, LinenSeparable(), apply, (5, 6, 6, 2))


class NnxTransformer(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.embed = nnx.Linear(5, 6, rngs=rngs)
        self.norm1, self.norm2 = nnx.LayerNorm(6, rngs=rngs), nnx.LayerNorm(6, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(3, 6, decode=False, rngs=rngs)
        self.up, self.down = nnx.Linear(6, 9, rngs=rngs), nnx.Linear(9, 6, rngs=rngs)
        self.out = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        x = self.embed(x)
        x = x + self.attention(self.norm1(x))
        x = x + self.down(nnx.gelu(self.up(self.norm2(x))))
        return self.out(x.mean(axis=1))


class LinenTransformer(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(6, name="embed")(x)
        x = x + nn.MultiHeadDotProductAttention(3, name="attention")(nn.LayerNorm(name="norm1")(x))
        up = nn.Dense(9, name="up")(nn.LayerNorm(name="norm2")(x))
        return nn.Dense(3, name="out")((x + nn.Dense(6, name="down")(nn.gelu(up))).mean(axis=1))


def transformer() -> Example:
    def norm(params, x):
        mean = x.mean(axis=-1, keepdims=True)
        variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(variance + 1e-6) * params["scale"] + params["bias"]

    def apply(_stats, params, x, tap):
        x = tap.dense("embed", x)
        y = norm(params["norm1"], x)
        query, key, value = (tap.dense(f"attention/{part}", y) for part in ("query", "key", "value"))
        scores = jnp.einsum("bqhd,bkhd->bhqk", query / jnp.sqrt(query.shape[-1]), key)
        y = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), value)
        x = x + tap.dense("attention/out", y, axes=2)
        x = x + tap.dense("down", jax.nn.gelu(tap.dense("up", norm(params["norm2"], x))))
        return tap.dense("out", x.mean(axis=1))

    return example(NnxTransformer, LinenTransformer(), apply, (5, 4, 5))


EXAMPLES: dict[str, Callable[[], Example]] = {
    "mlp": cache(mlp),
    "cnn": cache(cnn),
    "residual": cache(residual),
    "separable": cache(separable),
    "transformer": cache(transformer),
}


def regression_in(network: Network, inputs: Any, layer: str, *, params: Mapping[str, Any] | None = None) -> Regression:
    """Of what a layer should return in a network with these parameters, the dense one's by default."""
    targets = targets_from_start(network, [inputs], layer, network.params if params is None else params, network.params)
    return targeted_regression(network, layer, targets)
