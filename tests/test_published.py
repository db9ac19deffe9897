"""Figures that other papers published for a checkpoint of theirs come out of our evaluation."""

import os
from pathlib import Path

import pytest

from annealsubnet import baselines, evaluate, examples

# One-shot global magnitude on MLPNet (Singh and Alistarh, WoodFisher, 2020; Benbaki and others, CHITA, 2023), MNIST test, %.
PUBLISHED = {0.5: 93.93, 0.4: 93.78, 0.3: 93.62, 0.2: 92.89, 0.1: 90.30, 0.05: 83.64, 0.02: 32.25}


@pytest.mark.data
def test_magnitude_on_mlpnet_as_published():
    model = examples.load_checkpoint("mlpnet", Path(os.environ["ANNEALSUBNET_DATA"], "checkpoints", "mlpnet_mnist.npz"))
    named = examples.named_network("mlpnet")
    test = list(examples.load("mnist", seed=0).batches("test", 2000, normalize=named.normalize))
    assert 100 * evaluate(model, test).accuracy == pytest.approx(93.97, abs=0.005)
    for keep, published in PUBLISHED.items():
        _, pruned = baselines.magnitude(model, None, keep=keep, unit="weight")
        assert 100 * evaluate(pruned, test).accuracy == pytest.approx(published, abs=0.02 + 1e-6)
