"""Students: random weights of the size that sums of a few of them need.

A weight of the teacher is put together from a few candidates, most often from none or one where little may be kept, so a
candidate's coefficient should be as large as the teacher's larger weights: normal with `spread` times the root mean square of
the teacher's layer. That is one number of the teacher for each layer; nothing else of it is known to the student. In a block of
two layers the first has standard normal weights, so that a coefficient is a product of two normal numbers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from annealsubnet.arguments import check_weight, check_whole
from annealsubnet.batches import Batches, first_inputs
from annealsubnet.distillation.blocks import blocks_of
from annealsubnet.networks import Network, as_network


def draw_student(
    teacher: Any,
    student: Any,
    batches: Batches,
    *,
    spread: float = 2.0,
    blocks: Mapping[str, str | Sequence[str]] | None = None,
    seed: int,
) -> Any:
    """The student with random kernels and zero biases.

    Args:
        teacher: trained, in any form that `distill_ticket` takes.
        student: whose weights are drawn anew. It is not changed.
        batches: of which the first tells the shape of inputs.
        spread: coefficients in units of the root mean square of the teacher's layer.
        blocks: as in `distill_ticket`.
        seed: of the weights.

    Returns:
        A new model in the form that the student came in.

    Raises:
        ValueError: for a spread that is not positive and finite, a negative seed, or layers that do not fit each other.
        TypeError: for a seed that is no whole number.
    """
    check_weight("spread", spread, above_zero=True)
    seed = check_whole("seed", seed, 0)
    example = first_inputs(batches)
    theirs, ours = as_network(teacher, example), as_network(student, example)
    params = dict(ours.params)
    for number, block in enumerate(blocks_of(theirs, ours, blocks)):
        rng = np.random.default_rng([seed, number])
        size = spread * float(np.sqrt(np.square(np.asarray(theirs.params[block.teacher.kernel], np.float64)).mean()))
        for layer, deviation in ((block.first, 1.0), (block.last, size)):
            if layer is None:
                continue
            params[layer.kernel] = jnp.asarray(deviation * rng.normal(size=layer.shape), params[layer.kernel].dtype)
            if layer.bias is not None:
                params[layer.bias] = jnp.zeros_like(params[layer.bias])
    exported = ours.model.export(params)
    return ours.replace(exported) if isinstance(student, Network) else exported
