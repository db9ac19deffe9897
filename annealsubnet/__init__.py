"""Find the best subnetwork of a Flax network by annealing.

A network's contribution statistics become binary quadratic models over local neighborhoods of its neurons and weights;
annealers (ours, those of D-Wave's Ocean, or a quantum one) choose what stays, and least squares refits it.

Importing this package is cheap: each public name loads the module that defines it when it is first used (PEP 562).

Example:
    >>> import annealsubnet as asn
    >>> sorted(name for name in asn.__all__ if name.startswith("from_"))
    ['from_function', 'from_linen']
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import annealsubnet.baselines as baselines
    import annealsubnet.examples as examples
    import annealsubnet.landscapes as landscapes
    import annealsubnet.leap as leap
    import annealsubnet.losses as losses
    import annealsubnet.testing as testing
    import annealsubnet.tickets as tickets
    from annealsubnet.distillation import distill_ticket
    from annealsubnet.evaluation import Evaluation, evaluate
    from annealsubnet.gradual import Training
    from annealsubnet.masks import Mask, masked
    from annealsubnet.networks import Model, Network, from_function, from_linen
    from annealsubnet.parameter_files import load_parameters, save_parameters
    from annealsubnet.problems import Problem
    from annealsubnet.pruning import prune
    from annealsubnet.refitting import refit
    from annealsubnet.renormalizing import renormalize
    from annealsubnet.shares import weight_curves
    from annealsubnet.shrinking import shrink
    from annealsubnet.solvers import Annealer, solve
    from annealsubnet.thinning import thin
    from annealsubnet.tickets import find_ticket

    __version__: str

_HOME = {
    "Annealer": "solvers",
    "Evaluation": "evaluation",
    "Mask": "masks",
    "Model": "networks",
    "Network": "networks",
    "Problem": "problems",
    "Training": "gradual",
    "distill_ticket": "distillation",
    "evaluate": "evaluation",
    "find_ticket": "tickets",
    "from_function": "networks",
    "from_linen": "networks",
    "load_parameters": "parameter_files",
    "masked": "masks",
    "prune": "pruning",
    "refit": "refitting",
    "renormalize": "renormalizing",
    "save_parameters": "parameter_files",
    "shrink": "shrinking",
    "solve": "solvers",
    "thin": "thinning",
    "weight_curves": "shares",
}
_SUBPACKAGES = ("baselines", "distillation", "examples", "landscapes", "leap", "losses", "testing", "tickets")

__all__ = [
    "Annealer",
    "Evaluation",
    "Mask",
    "Model",
    "Network",
    "Problem",
    "Training",
    "baselines",
    "distill_ticket",
    "distillation",
    "evaluate",
    "examples",
    "find_ticket",
    "from_function",
    "from_linen",
    "landscapes",
    "leap",
    "load_parameters",
    "losses",
    "masked",
    "prune",
    "refit",
    "renormalize",
    "save_parameters",
    "shrink",
    "solve",
    "testing",
    "thin",
    "tickets",
    "weight_curves",
]


def __getattr__(name: str) -> Any:
    """The public object `name`, imported from its module on first use."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("annealsubnet")
    elif name in _HOME:
        value = getattr(import_module(f"annealsubnet.{_HOME[name]}"), name)
    elif name in _SUBPACKAGES:
        value = import_module(f"annealsubnet.{name}")
    else:
        raise AttributeError(f"module 'annealsubnet' has no attribute {name!r}; it has {', '.join(__all__)}.")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
