"""The same weights as NNX, Linen and function have the same statistics."""

import numpy as np
import pytest

from annealsubnet.statistics.curvature import neuron_curvature
from annealsubnet.statistics.moments import input_moments
from tests.models import EXAMPLES


@pytest.mark.parametrize("form", ["linen", "function"])
@pytest.mark.parametrize("name", ["mlp", "cnn", "residual", "transformer"])
def test_statistics_agree(name, form):
    example = EXAMPLES[name]()
    first, other = example.network("nnx"), example.network(form)
    moments, same = (input_moments(network, [example.inputs]) for network in (first, other))
    for layer, found in moments.items():
        np.testing.assert_allclose(same[layer].gram, found.gram, rtol=0, atol=1e-5 * np.abs(found.gram).max())
        np.testing.assert_allclose(same[layer].mean, found.mean, rtol=0, atol=1e-5 * np.sqrt(np.abs(found.gram).max()))
    curvature, same = (neuron_curvature(network, [example.inputs]) for network in (first, other))
    for layer, found in curvature.items():
        np.testing.assert_allclose(same[layer], found, rtol=0, atol=1e-5 * max(found.max(), 1e-12))
