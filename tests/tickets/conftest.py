"""What tests of tickets share: a small random network for digits."""

import pytest
from flax import nnx

from annealsubnet.examples import load, named_network
from annealsubnet.examples.architectures import MLP
from annealsubnet.networks import as_network
from annealsubnet.tickets import initialize


@pytest.fixture(scope="package")
def case():
    data, named = load("digits", seed=0), named_network("digits-mlp")
    batches = list(data.batches("train", 500, normalize=named.normalize, examples=400))
    model = MLP((8, 8, 1), (24, 10), rngs=nnx.Rngs(0))
    return as_network(initialize(model, keep=0.5, example=batches[0][0], seed=0), batches[0][0]), batches
