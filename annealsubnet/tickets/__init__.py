"""Tickets: subnetworks of random networks that perform without any weight being trained.

Example:
    >>> import annealsubnet as asn
    >>> data, network = asn.examples.load("digits", seed=0), asn.examples.named_network("digits-mlp")
    >>> batches = data.batches("train", 256, normalize=network.normalize)
    >>> inputs, _ = next(iter(batches))
    >>> model = initialize(network.build(seed=0), keep=0.5, example=inputs, seed=0)
    >>> mask = find_ticket(model, batches, keep=0.5, passes=20, seed=0)
    >>> mask
    Mask(weight, 8,512 of 17,024 kept in 3 sites)
"""

from annealsubnet.tickets.find import find_ticket
from annealsubnet.tickets.initialize import initialize
from annealsubnet.tickets.progress import Check
from annealsubnet.tickets.quadratic import Blocks
from annealsubnet.tickets.rules import Rule, annealed, edge_popup, latent_scores, sampled, supermask
from annealsubnet.tickets.searches import genetic, greedy_exchanges, random_masks

__all__ = [
    "Blocks",
    "Check",
    "Rule",
    "annealed",
    "edge_popup",
    "find_ticket",
    "genetic",
    "greedy_exchanges",
    "initialize",
    "latent_scores",
    "random_masks",
    "sampled",
    "supermask",
]
