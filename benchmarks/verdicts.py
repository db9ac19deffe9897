"""Which held images a network gets right, kept with its row; shared by scripts, not one itself.

Methods are compared on the same seeds and the same images, so a difference of accuracies has two sources of chance: the seeds,
and the images. An error over seeds alone says nothing of the second, which no number of seeds makes smaller. With
d[s, i] ∈ {−1, 0, 1}, what one method got right less what the other did (seed s, image i), as a sum of a mean, a part of the
seed, a part of the image and a rest that have nothing to do with each other,

    Var(mean d) = V_s / S + V_i / N + V_rest / (S N)

which the mean squares of the two-way layout estimate without bias as (M_s + M_i − M_rest) / (S N).

References:
    Searle, Casella and McCulloch (1992), Variance Components, section 4.3 (two-way crossed, random effects).
    Owen (2007), The pigeonhole bootstrap, Ann. Appl. Stat. 1(2), on why resampling one way is not enough.
"""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import jax.numpy as jnp
import numpy as np

from annealsubnet.networks import Network, Params


def verdicts(network: Network, params: Params, batches: Iterable[tuple[Any, Any]]) -> np.ndarray:
    """Whether each image's largest output is its label, `[images]`."""
    apply = network.jitted("verdicts")(lambda values, inputs: jnp.argmax(network.apply(values, inputs), axis=-1))
    return np.concatenate([np.asarray(apply(params, inputs)) == labels for inputs, labels in batches])


def packed(right: np.ndarray) -> str:
    """Verdicts of any shape as text for a row's column."""
    return f"{'x'.join(map(str, right.shape))}:{base64.b64encode(np.packbits(right)).decode()}"


def unpacked(text: str) -> np.ndarray:
    """What `packed` wrote."""
    sizes, bits = text.split(":")
    shape = tuple(map(int, sizes.split("x")))
    return np.unpackbits(np.frombuffer(base64.b64decode(bits), np.uint8), count=prod(shape)).reshape(shape).astype(bool)


@dataclass(frozen=True)
class Gap:
    """By how much one method's accuracy exceeds another's, in percent.

    Attributes:
        mean: of the differences.
        over_seeds: its standard error if the images were all there are; NaN for one seed.
        over_both: its standard error if other seeds had met other images; for one seed that over images.
    """

    mean: float
    over_seeds: float
    over_both: float

    def __str__(self) -> str:
        over_seeds = "–" if np.isnan(self.over_seeds) else f"{self.over_seeds:.2f}"
        return f"{self.mean:+.2f} ± {over_seeds} / {self.over_both:.2f}"


def gap(theirs: np.ndarray, ours: np.ndarray) -> Gap:
    """Theirs less ours.

    Args:
        theirs, ours: verdicts of the same seeds on the same images, `[seeds, images]`.
    """
    if theirs.shape != ours.shape:
        raise ValueError(f"Verdicts of shape {theirs.shape} cannot be compared with those of shape {ours.shape}.")
    d = 100 * (theirs.astype(float) - ours.astype(float))
    seeds, images = d.shape
    by_image = d.mean(axis=0)
    squares_image = seeds * by_image.var(ddof=1)
    if seeds == 1:
        return Gap(float(d.mean()), float("nan"), float(np.sqrt(squares_image / images)))
    by_seed = d.mean(axis=1)
    squares_seed = images * by_seed.var(ddof=1)
    rest = d - by_seed[:, None] - by_image + d.mean()
    squares_rest = (rest**2).sum() / ((seeds - 1) * (images - 1))
    # The estimate may by chance come out below that of one source alone, which the truth never is.
    both = max(squares_seed + squares_image - squares_rest, squares_seed, squares_image)
    return Gap(float(d.mean()), float(np.sqrt(squares_seed / d.size)), float(np.sqrt(both / d.size)))


def cell(right: Mapping[int, np.ndarray], ours: Mapping[int, np.ndarray]) -> str:
    """Accuracy in percent, mean over seeds, and behind it the difference from ours over the seeds that both have.

    Args:
        right, ours: verdicts by seed, `[images]` each; the same object where the method is ours.
    """
    text = f"{100 * np.mean(list(right.values())):.2f}"
    both = [seed for seed in right if seed in ours]
    if not both or right is ours:
        return text
    return f"{text} ({gap(np.stack([right[seed] for seed in both]), np.stack([ours[seed] for seed in both]))})"
