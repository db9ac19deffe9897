"""Names: what each method is called in tables and figures, and a line about it for the reader who meets it first."""

METHODS = {
    "annealed": ("annealed (ours)", "anneals the error after a refit; with a sampler, or without a refit, quadratic models"),
    "greedy": ("greedy", "quadratic models of the error without a refit, solved greedily"),
    "magnitude": ("magnitude", "keeps the largest weights"),
    "activation": ("mean activation", "keeps the neurons with the largest mean activation (Polyak and Wolf 2015)"),
    "taylor": ("Taylor", "keeps what changes the loss most, to first order, example by example (Molchanov 2017)"),
    "fisher": ("diagonal Fisher", "keeps what changes the loss most, by the mean squared gradient (Theis 2018)"),
    "obd": ("brain damage", "keeps what changes the loss most, by the diagonal of its curvature (LeCun 1989)"),
    "snip": ("SNIP", "keeps the weights with the most sensitive connections (Lee 2019)"),
    "grasp": ("GraSP", "keeps the gradient flow (Wang 2020)"),
    "synflow": ("SynFlow", "keeps the synaptic flow, without data (Tanaka 2020)"),
    "wanda": ("Wanda", "keeps the weights with the largest product of weight and input norm (Sun 2024)"),
    "sparsegpt": ("SparseGPT", "one pass over the inputs, in which those to come make up for what goes (Frantar 2023)"),
    "obc": ("OBC", "removes the weight that costs least after a refit, again and again (Frantar 2022)"),
    "forward": ("forward selection", "adds the input that helps most after a refit (Chen 1989)"),
    "alps": ("ALPS", "a layer's weights under a count, by ADMM (Meng 2024)"),
    "sparse-swaps": ("SparseSwaps", "exchanges within a neuron on the error without refit (2025)"),
    "woodfisher": ("WoodFisher", "brain surgeon with a block-diagonal Fisher information (Singh 2020)"),
    "surgeon": ("combinatorial surgeon", "exchanges on a quadratic model of the loss (Yu 2022)"),
    "zero-swaps": ("surgeon, no swaps", "the largest weights, with the surgeon's update"),
    "chita": ("CHITA", "a sparse regression on gradients, by hard thresholding (Benbaki 2023)"),
    "gradual": ("gradual magnitude", "removes the smallest weights in stages, with training in between (Zhu 2017)"),
    "osscar": ("OSSCAR", "neurons by local search on the error after the refit (Meng 2024)"),
    "random": ("random", "keeps a random choice, as a floor"),
}


def labels() -> dict[str, str]:
    """Method to the name that is shown."""
    return {name: label for name, (label, _) in METHODS.items()}


def explanation(method: str) -> str:
    """A line about `method`; empty for one that this module doesn't know."""
    return METHODS[method][1] if method in METHODS else ""
