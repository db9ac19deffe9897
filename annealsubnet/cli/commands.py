"""Commands: the words that the command line takes, as frozen values.

A subcommand is a dataclass; its docstring and those of its fields are the help text. `annealsubnet.cli.main` carries it out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from annealsubnet.cli.leap_commands import Estimate, Results, Resume, Status, Submit

Unit = Literal["weight", "neuron", "head"]
Scope = Literal["network", "layer", "neuron"]


def _word(metavar: str, *, hint: str = "") -> Any:
    """How an option's value is called in the help text, and its default where that says more than the description."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"({hint})" if hint else "")


@dataclass(frozen=True)
class Source:
    """The network and the data, of any command."""

    subject: Annotated[str | None, tyro.conf.Positional, _word("[MODULE:FUNCTION]")] = None
    """Your own network and data: a function that returns (model, calibration data, test data)."""

    data: Annotated[str | None, _word("digits|mnist|cifar10|FILE.npz")] = None
    """Data to use; digits, or what --network is for, if not given."""

    network: Annotated[str | None, _word("NAME")] = None
    """Named network, such as digits-mlp, mlpnet, lenet-300-100 or resnet20; one that fits the data if not given."""

    checkpoint: Annotated[Path | None, _word("FILE")] = None
    """Weights of --network (.npz or .safetensors); without them it is trained first."""

    calibration: Annotated[int | None, _word("INT")] = None
    """Training examples that methods and refit may read. By default 5,000 of named data, all of your own."""


@dataclass(frozen=True)
class Prune(Source):
    """Keep the best part of a network, chosen by annealing and by the classical methods, and compare them.

    With nothing else it trains a small network on scikit-learn's handwritten digits and prunes that. It prints a table and
    writes a folder with report.html, results.csv, a figure, the masks and the pruned networks.
    """

    unit: Annotated[tuple[Unit, ...] | None, _word("weight|neuron|head ...", hint="default: neuron weight")] = None
    """What is kept or removed; one or more. Of the default only what all named methods can choose."""

    keep: Annotated[tuple[str, ...], _word("SIZE ...")] = ()
    """How much is kept, one or more: fractions (0.05 or 5%) or counts (200). By default .5 .25 .12 (neurons) and .2 .1 .05
    (weights)."""

    scope: Annotated[Scope | None, _word("network|layer|neuron")] = None
    """What the sizes are meant of. By default each layer for neurons and heads (over the whole network most classical
    methods remove a layer altogether), the network for weights."""

    pattern: Annotated[str | None, _word("N:M|BxC")] = None
    """Pattern of the zeros, for weights: 2:4 keeps 2 of every 4 inputs of a neuron, 4x1 blocks of 4 inputs by 1 neuron."""

    exclude: Annotated[tuple[str, ...], _word("NAME ...")] = ()
    """Layers from which nothing is removed, one or more, by the names that mask files and messages have for them; a refit still
    adapts their weights."""

    method: Annotated[tuple[str, ...], _word("NAME ...")] = ()
    """Methods to compare, one or more. By default annealed and the classical ones: greedy, magnitude, activation, taylor,
    fisher, obd, snip, grasp, synflow, random. On request for weights: wanda, sparsegpt, obc, forward, alps, sparse-swaps,
    woodfisher, surgeon, zero-swaps, chita, gradual; for neurons: osscar."""

    refit: bool = True
    """Measure also after a least-squares refit of what is kept, the same for all methods, beside the methods' own weights."""

    sampler: Annotated[str | None, _word("NAME")] = None
    """Sampler for the method annealed, which then selects by binary quadratic models: annealer (ours), or
    simulated-annealing, tabu, steepest-descent, exact (of D-Wave's Ocean), leap (their QPUs). By default the
    select-and-refit annealer."""

    sampler_option: Annotated[tuple[str, ...], _word("NAME=VALUE ...")] = ()
    """Options of --sampler, such as num_reads=20. (tabu takes timeout=5 ms a problem by default.)"""

    polish: Annotated[int | None, _word("INT")] = None
    """Rounds of exchanges of weights over all layers at once, behind the layers' own selections, and unless 0 a fit of all
    layers together to what annealed keeps, weights, neurons or heads; seconds to minutes each. By default 3, as in
    annealsubnet.prune; 0 where nothing is said of network and data, so that this demonstration is short."""

    budget_seconds: Annotated[float | None, _word("SECONDS")] = None
    """QPU access time that --sampler leap may spend, over all sizes and seeds."""

    yes: tyro.conf.FlagCreatePairsOff[bool] = False
    """Don't ask before --sampler leap spends for the first time."""

    seed: Annotated[
        tuple[int, ...], tyro.conf.arg(aliases=["--seeds"], metavar="INT ...", help_behavior_hint="(default: 0 1 2)")
    ] = (0, 1, 2)
    """Seeds of the network, of the calibration examples and of the methods; one or more."""

    out: Annotated[Path | None, _word("FOLDER")] = None
    """Folder to write: annealsubnet-results, or the first free annealsubnet-results-2, -3, ... if not given."""

    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace earlier results in that folder."""

    quiet: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print nothing but errors."""


@dataclass(frozen=True)
class Evaluate(Source):
    """Measure a network whole, under a saved mask, and refitted.

    The same network and data as for prune; a network that is trained here is the same for the same seed.
    """

    mask: Annotated[Path, _word("FILE")] = Path("annealsubnet-results/mask.safetensors")
    """Mask that Mask.save or prune wrote."""

    seed: Annotated[int, _word("INT", hint="default: 0")] = 0
    """Seed of the network and the calibration examples."""


@dataclass(frozen=True)
class Leap:
    """Predict, send, look at and resume jobs on D-Wave's quantum annealers: estimate, submit, status, resume, results."""

    command: Annotated[
        Annotated[Estimate, tyro.conf.subcommand("estimate")]
        | Annotated[Submit, tyro.conf.subcommand("submit")]
        | Annotated[Status, tyro.conf.subcommand("status")]
        | Annotated[Resume, tyro.conf.subcommand("resume")]
        | Annotated[Results, tyro.conf.subcommand("results")],
        tyro.conf.arg(name=""),
    ]


@dataclass(frozen=True)
class Ticket:
    """Find a subnetwork that performs in a random network; no weight is trained.

    With nothing else: a random network for scikit-learn's handwritten digits, half of whose weights are kept. It prints every
    check and writes a folder with the mask, the log and a figure.
    """

    network: Annotated[str | None, _word("NAME|MODULE:FUNCTION")] = None
    """lenet-300-100 (or other widths), conv-2, conv-4 or another named network; or your own: a function that returns (model,
    training data, test data). One that fits the data if not given."""

    data: Annotated[str | None, _word("digits|mnist|cifar10|FILE.npz")] = None
    """Data to use; digits, or what --network is for, if not given."""

    keep: Annotated[str, _word("SIZE", hint="default: 0.5")] = "0.5"
    """How much of each layer stays: a fraction (0.5 or 50%) or a count."""

    unit: Annotated[Literal["weight", "neuron"], _word("weight|neuron")] = "weight"
    """What is kept or removed."""

    weights: Annotated[Literal["signed-constant", "kaiming-normal"] | None, _word("signed-constant|kaiming-normal")] = None
    """How the weights of a named network are drawn; signed-constant if not given."""

    rescale: bool = True
    """Draw them wider, by one over the square root of the share kept of a neuron's inputs."""

    passes: Annotated[float | None, _word("NUMBER")] = None
    """How often every training example is seen; 100 for digits, else 20."""

    examples: Annotated[int | None, _word("INT")] = None
    """Training examples of named data to use; all if not given."""

    checks: Annotated[int, _word("INT", hint="default: 10")] = 10
    """How often the search is checked, shown and saved."""

    seed: Annotated[int, _word("INT", hint="default: 0")] = 0
    """Seed of the network, of the data's split and of the search."""

    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Go on with the search in the folder; give the same options."""

    out: Annotated[Path | None, _word("FOLDER")] = None
    """Folder to write: annealsubnet-ticket, or the first free annealsubnet-ticket-2, -3, ... if not given."""

    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace earlier results in that folder."""

    quiet: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print nothing but errors."""


Command = Prune | Evaluate | Leap | Ticket

COMMANDS: dict[str, Callable[..., Command]] = {"prune": Prune, "evaluate": Evaluate, "leap": Leap, "ticket": Ticket}


def parse(arguments: Sequence[str]) -> Command:
    """The command that `arguments` ask for.

    Raises:
        SystemExit: They can't be parsed (code 2), or ask for help (code 0).

    Example:
        >>> parse(["prune", "--keep", ".5", "10%", "--seed", "3"]).keep
        ('.5', '10%')
    """
    return tyro.extras.subcommand_cli_from_dict(
        COMMANDS,
        prog="annealsubnet",
        description="Find the best subnetwork of a Flax network by annealing.",
        args=list(arguments),
    )
