"""Problems on D-Wave's Leap: planned and priced without a network, submitted under a budget, resumed after anything.

    plan = leap.plan(problems, solver, seed=0)                          # parts, embeddings, jobs; nothing is spent
    plan.qpu_seconds                                                    # predicted
    results = plan.submit(budget_seconds=1.0, ledger="jobs.sqlite")
    results = leap.resume("jobs.sqlite")                                # after a crash, in another process, another day

Needs the extra `annealsubnet[leap]`; nothing of D-Wave's is imported before it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from annealsubnet.leap.connection import Connection, LeapError
    from annealsubnet.leap.devices import qpu as typical_qpu
    from annealsubnet.leap.embedding import CannotEmbed, EmbeddingCache, embed
    from annealsubnet.leap.hybrid import HybridSampler
    from annealsubnet.leap.ledger import Ledger
    from annealsubnet.leap.merging import Results, results
    from annealsubnet.leap.packing import pack, pack_jobs
    from annealsubnet.leap.part_figures import part_rows
    from annealsubnet.leap.patience import Patience
    from annealsubnet.leap.planning import Plan, plan
    from annealsubnet.leap.resuming import resume
    from annealsubnet.leap.sampler import LeapSampler
    from annealsubnet.leap.working_graphs import working_graph

_HOME = {
    "CannotEmbed": "embedding",
    "Connection": "connection",
    "EmbeddingCache": "embedding",
    "HybridSampler": "hybrid",
    "LeapError": "connection",
    "LeapSampler": "sampler",
    "Ledger": "ledger",
    "Patience": "patience",
    "Plan": "planning",
    "Results": "merging",
    "embed": "embedding",
    "pack": "packing",
    "pack_jobs": "packing",
    "part_rows": "part_figures",
    "plan": "planning",
    "results": "merging",
    "resume": "resuming",
    "typical_qpu": "devices",
    "working_graph": "working_graphs",
}

__all__ = [
    "CannotEmbed",
    "Connection",
    "EmbeddingCache",
    "HybridSampler",
    "LeapError",
    "LeapSampler",
    "Ledger",
    "Patience",
    "Plan",
    "Results",
    "embed",
    "pack",
    "pack_jobs",
    "part_rows",
    "plan",
    "results",
    "resume",
    "typical_qpu",
    "working_graph",
]


def __getattr__(name: str) -> Any:
    """The public object `name`, imported from its module on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'annealsubnet.leap' has no attribute {name!r}; it has {', '.join(__all__)}.")
    home = import_module(f"annealsubnet.leap.{_HOME[name]}")
    value = getattr(home, "qpu" if name == "typical_qpu" else name)
    globals()[name] = value
    return value
