"""`annealsubnet ticket`: from the words of the command line to a mask of a random network.

The folder holds mask.safetensors, checks.csv, ticket.png and config.json, and search.npz, from which `--resume` goes on; after
an interrupt all but the mask. What it held before is there until the search has something to put in its place.
"""

import csv
import json
import shlex
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rich.console import Console

from annealsubnet import report
from annealsubnet.arguments import MOST_SEED, check_whole
from annealsubnet.cli.commands import Ticket
from annealsubnet.cli.refusals import Refusal, is_refusal
from annealsubnet.cli.subjects import BATCH, own_subject
from annealsubnet.report import provenance
from annealsubnet.report.folder import FORMAT, MARKER, remove_results
from annealsubnet.tickets.progress import Check, read_log

DEFAULT_FOLDER = Path("annealsubnet-ticket")
PASSES = {"digits": 100, "mnist": 20, "cifar10": 20}
STATE = "search.npz"
HEADER = "   round       seen     loss  held-in  accuracy    flips  predicted   actual"


@dataclass(frozen=True)
class Lottery:
    """A random network with the data to find a ticket with.

    Attributes:
        network, data: in words.
        model: with its random weights.
        train, test: batches.
        passes: how often every training example is seen unless asked otherwise.
    """

    network: str
    data: str
    model: Any
    train: Any
    test: Any
    passes: int


def ticket(options: Ticket, *, check_interrupt: Callable[[], None] = lambda: None) -> None:
    """Carry out what `options` ask for.

    Raises:
        Refusal: They can't be carried out.
        ValueError, TypeError, OSError: As the package's functions raise them.
    """
    with _folder(options) as folder:
        _search(options, folder, check_interrupt)


def _search(options: Ticket, folder: Path, check_interrupt: Callable[[], None]) -> None:
    """Find the ticket, and write it into its folder."""
    from annealsubnet import evaluate
    from annealsubnet.batches import first_inputs
    from annealsubnet.networks import as_network
    from annealsubnet.tickets import find_ticket

    output = Console(quiet=options.quiet, highlight=False)
    keep = report.parse_keep(options.keep)
    start = time.perf_counter()
    lottery = lottery_of(options, keep)
    network = as_network(lottery.model, first_inputs(lottery.train))
    _check_test(network, lottery.test)
    output.print(f"\nA ticket of {lottery.network} for {lottery.data}; no weight is trained.\n")
    output.print(HEADER)

    def show(check: Check) -> None:
        check_interrupt()
        _claim(folder, options)
        output.print(
            f"{check.round:8,} {check.seen:10,} {check.loss:8.4f} {check.held_in_loss:8.4f} {check.held_in_accuracy:9.2%} "
            f"{check.flips:8,} {check.predicted:+10.4f} {check.actual:+8.4f}"
        )

    folder.mkdir(parents=True, exist_ok=True)
    before = _written(folder / STATE)
    try:
        mask = find_ticket(
            network, lottery.train, keep=keep, unit=options.unit,
            passes=lottery.passes if options.passes is None else options.passes,
            checks=options.checks, seed=options.seed, report=show, state_file=folder / STATE, resume=options.resume,
        )  # fmt: skip
        mask.save(folder / "mask.safetensors")
        _write_checks(folder)
        found = evaluate(network, lottery.test, mask)
        _write_config(folder, options, found)
    except KeyboardInterrupt as interrupt:
        if _written(folder / STATE) == before:
            raise
        _claim(folder, options)
        _write_checks(folder)
        told = f"the search so far is in {folder / STATE}; go on with the same options, --out {folder} and --resume"
        raise type(interrupt)(told) from interrupt
    output.print(
        f"\n{found.accuracy:.2%} of {found.examples:,} test examples are classified correctly by {mask.kept_count:,} of "
        f"{mask.size:,} random {mask.unit}s. In {folder}: mask.safetensors, checks.csv, ticket.png, config.json. "
        f"It took {time.perf_counter() - start:.0f} seconds.\n"
    )


def lottery_of(options: Ticket, keep: report.Keep) -> Lottery:
    """The random network and its data.

    Raises:
        Refusal: The options don't go together.
        ValueError, OSError: There is no such network or data, or it can't be read.
    """
    from annealsubnet.budgets import budget_of
    from annealsubnet.examples import load
    from annealsubnet.examples.ticket_networks import TICKET_DEFAULTS, ticket_network
    from annealsubnet.networks import as_network
    from annealsubnet.tickets import initialize
    from annealsubnet.tickets.initialize import kept_fan_in

    check_whole("--seed", options.seed, 0, MOST_SEED)
    if options.network is not None and ":" in options.network:
        words = [f"--{name}" for name in ("data", "weights", "examples") if getattr(options, name) is not None]
        words += [] if options.rescale else ["--no-rescale"]
        if words:
            raise Refusal(f"{options.network} brings its own data and its own weights; leave out {' and '.join(words)}.")
        trial = own_subject(options.network, None).trial(options.seed)
        return Lottery(f"the network of {options.network}", "its own data", trial.model, trial.calibration, trial.test, 20)
    source = options.data or (ticket_network(options.network).data if options.network else "digits")
    if options.network is None and source not in TICKET_DEFAULTS:
        raise Refusal(f"--data {source} needs --network with the name of a network that takes it.")
    named = ticket_network(options.network or TICKET_DEFAULTS[source])
    if named.data != source and not source.endswith(".npz"):
        raise Refusal(f"The network {named.name} is for {named.data}, not for {source}; use --data {named.data} or a file.")
    data = load(source, seed=options.seed)
    limit = None if options.examples is None else min(options.examples, len(data.train.labels))
    train = data.batches("train", BATCH, normalize=named.normalize, examples=limit)
    network = as_network(named.build(seed=options.seed), named.normalize(data.train.inputs[:1]))
    shares = kept_fan_in(network, budget_of(network, keep=keep, unit=options.unit, scope="layer")) if options.rescale else 1.0
    model = initialize(network, options.weights or "signed-constant", keep=shares, seed=options.seed)
    test = data.batches("test", BATCH, normalize=named.normalize)
    return Lottery(f"a random {named.name}", source, model, train, test, PASSES.get(source, 20))


def _folder(options: Ticket) -> AbstractContextManager[Path]:
    """Where files go: a new folder, or the one to go on in."""
    if not options.resume:
        return report.choose_folder(options.out, default=DEFAULT_FOLDER, overwrite=options.overwrite)
    folder = options.out or DEFAULT_FOLDER
    if not (folder / STATE).is_file():
        raise Refusal(f"There is no search to go on with in {folder}; name its folder with --out, or leave --resume out.")
    return nullcontext(folder)


def _check_test(network: Any, test: Any) -> None:
    """Refuse test examples that could not be evaluated, before anything is searched for."""
    from annealsubnet.losses import cross_entropy
    from annealsubnet.statistics.passes import labeled_for

    pairs = labeled_for(network, test, cross_entropy)
    try:
        for _ in pairs:
            pass
    except (ValueError, TypeError) as error:
        if not is_refusal(error):
            raise
        raise Refusal(f"The test examples can't be used. {error}") from error


def _written(path: Path) -> int | None:
    """When a file was written; None if there is none."""
    return path.stat().st_mtime_ns if path.is_file() else None


def _claim(folder: Path, options: Ticket) -> None:
    """Make the folder this search's: without earlier results, and marked, so that what comes can be overwritten."""
    remove_results(folder, but=STATE)
    _write_config(folder, options, None)


def _write_checks(folder: Path) -> None:
    """The log of the search, from its beginning, and its figure."""
    checks = read_log(folder / STATE)
    with (folder / "checks.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Check)])
        writer.writeheader()
        writer.writerows(asdict(check) for check in checks)
    (folder / "ticket.png").write_bytes(_picture(checks))


def _write_config(folder: Path, options: Ticket, found: Any) -> None:
    """How it was made, and what was found if it has been evaluated."""
    config = {
        "format": FORMAT,
        "files": ["mask.safetensors", "checks.csv", "ticket.png", STATE],
        "command": shlex.join(["annealsubnet", *sys.argv[1:]]),
        "options": asdict(options),
        "test_accuracy": None if found is None else found.accuracy,
        "machine": provenance.machine(),
        "versions": provenance.versions(),
    }
    (folder / MARKER).write_text(json.dumps(config, indent=2, default=str) + "\n")


def _picture(checks: list[Check]) -> bytes:
    """Losses against examples seen, and the predicted change of the loss against the actual one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from annealsubnet.report.figures import png

    values = {
        name: [getattr(check, name) for check in checks] for name in ("seen", "loss", "held_in_loss", "predicted", "actual")
    }
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.semilogy(values["seen"], values["loss"], marker="o", label="masks drawn in the rounds")
    left.semilogy(values["seen"], values["held_in_loss"], marker="s", label="ground state, held-in examples")
    left.set(xlabel="examples seen", ylabel="loss")
    left.legend(fontsize=8)
    right.plot(values["actual"], values["predicted"], "o")
    reach = [min([0.0, *values["actual"]]), max([0.0, *values["actual"]])]
    right.plot(reach, reach, linewidth=0.8)
    right.set(xlabel="actual change of the loss", ylabel="predicted change")
    return png(figure)
