"""`annealsubnet prune`: from the words of the command line to a table and a folder.

Everything that can be refused is refused first; then the work; then the files, all at once.
"""

import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from annealsubnet import report
from annealsubnet.budgets import Budget, ExcludeError
from annealsubnet.cli.commands import Prune
from annealsubnet.cli.leap import leap_sampler
from annealsubnet.cli.methods import Method, chosen_methods, default_units, known_methods, patterned
from annealsubnet.cli.refusals import Refusal
from annealsubnet.cli.subjects import Subject, subject_of
from annealsubnet.networks import Network
from annealsubnet.patterns import parse_pattern, pattern_budget
from annealsubnet.report import names, provenance

DEFAULT_FOLDER = Path("annealsubnet-results")
DEFAULT_KEEPS: Mapping[str, tuple[report.Keep, ...]] = {
    "neuron": (0.5, 0.25, 0.12),
    "weight": (0.2, 0.1, 0.05),
    "head": (0.75, 0.5, 0.25),
}
DEFAULT_SCOPES: Mapping[str, str] = {"neuron": "layer", "weight": "network", "head": "layer"}


WIDE, LINE = 240, 100
"""Letters in a line of a table written to a file; letters in a line of text."""


_WHOLE: Mapping[str, str] = {"network": "the whole network", "layer": "each layer", "neuron": "each neuron's inputs"}


@dataclass
class Stages:
    """Wall time of each stage of the run.

    Attributes:
        seconds: stage to its time so far.
    """

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of the block to `stage`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


def prune(
    options: Prune,
    *,
    methods: Mapping[str, Method] | None = None,
    procedures: report.Procedures | None = None,
    check_interrupt: Callable[[], None] = lambda: None,
) -> None:
    """Carry out what `options` ask for.

    Args:
        options: from the command line.
        methods: by name; `annealsubnet.prune` and the baselines if `None`.
        procedures: what evaluates and refits; the package's own functions if `None`.
        check_interrupt: called at every step and before the files appear; may raise `KeyboardInterrupt`.

    Raises:
        Refusal: They can't be carried out.
        ValueError, TypeError, OSError: As the package's functions raise them.
    """
    with report.choose_folder(options.out, default=DEFAULT_FOLDER, overwrite=options.overwrite) as folder:
        _prune(options, folder, methods, procedures or report.PackageProcedures(), check_interrupt)


def _prune(
    options: Prune,
    folder: Path,
    methods: Mapping[str, Method] | None,
    procedures: report.Procedures,
    check_interrupt: Callable[[], None],
) -> None:
    """Compare the methods, and write into the folder what is found."""
    stages = Stages()
    output = Console(quiet=options.quiet, highlight=False, width=None if sys.stdout.isatty() else WIDE)
    quantum = leap_sampler(options) if methods is None else None
    if methods is None:
        known = known_methods(quantum or options.sampler, options.sampler_option, polish=polish_rounds(options))
        plan = replace(_plan(options, known), check=partial(_budget, options))
    else:
        plan = _plan(options, methods)
    with stages.timed("load"):
        subject = subject_of(options)
    try:
        comparison = _compare(options, plan, subject, procedures, stages, check_interrupt)
    except ExcludeError as error:
        name = "" if error.layer is None else f" {shlex.quote(error.layer)}"
        raise Refusal(error.worded(f"--exclude{name}")) from error
    story, shown = _story(plan, subject, comparison)
    files = _files(comparison, procedures, shown)
    _print_results(output, story)
    with stages.timed("draw and write"):
        _write(folder, options, plan, subject, story, files, stages, check_interrupt)
    _print_files(output, folder, story, shown, stages)
    if quantum is not None:
        output.print(f"{quantum.story()}\n", width=_line(output))


def polish_rounds(options: Prune) -> int | None:
    """Rounds of exchanges: as asked, none in the demonstration, which is to be short, else those of `annealsubnet.prune`."""
    named = (options.subject, options.data, options.network)
    return 0 if options.polish is None and named == (None, None, None) else options.polish


def _plan(options: Prune, known: Mapping[str, Method]) -> report.Plan:
    """Methods, sizes and stages."""
    if options.unit == () or not options.seed:
        raise Refusal(f"--{'unit' if options.unit == () else 'seed'} needs at least one value.")
    units = default_units(options.method) if options.unit is None else tuple(dict.fromkeys(options.unit))
    asked = _sizes(options.keep)
    if options.pattern is not None:
        units, asked = ("weight",), _pattern_keeps(options, asked)
        known = patterned(known, options.pattern, options.method)
    if options.exclude:
        known = {name: partial(method, exclude=options.exclude) for name, method in known.items()}
    methods: dict[str, Mapping[str, Method]] = {unit: chosen_methods(known, unit, options.method) for unit in units}
    first = methods[units[0]]
    return report.Plan(
        methods=methods,
        keeps={unit: asked or DEFAULT_KEEPS[unit] for unit in units},
        scopes={unit: options.scope or ("neuron" if options.pattern else DEFAULT_SCOPES[unit]) for unit in units},
        stages=(False, True) if options.refit else (False,),
        kept_masks=report.ANNEALED if report.ANNEALED in first else next(iter(first)),
    )


def _sizes(texts: tuple[str, ...]) -> tuple[report.Keep, ...]:
    """The sizes asked for, each once; rows are told apart by them, and for Python one unit and all of them (1.0) are equal."""
    sizes = tuple(map(report.parse_keep, texts))
    if len({type(size) for size in sizes if size == 1}) > 1:
        raise Refusal("--keep asks for 1 unit and for all of them (100%), of which only one can be compared at a time.")
    return tuple(dict.fromkeys(sizes))


def _pattern_keeps(options: Prune, asked: tuple[report.Keep, ...]) -> tuple[report.Keep, ...]:
    """Sizes under a pattern, which may say them itself."""
    pattern = parse_pattern(str(options.pattern))
    if options.unit is not None and "weight" not in options.unit:
        raise Refusal(f"--pattern {options.pattern} is for weights; use --unit weight.")
    if pattern.is_block:
        return asked
    if asked:
        raise Refusal(f"--pattern {options.pattern} says how much is kept; leave --keep out.")
    return (pattern.stays / pattern.inputs,)


def _budget(options: Prune, network: Network, *, keep: report.Keep, unit: str, scope: str) -> Budget:
    """What a size comes to for the methods of this package; raises where they would refuse it."""
    pattern = options.pattern
    size = keep if pattern is None or parse_pattern(pattern).is_block else None
    return pattern_budget(network, pattern, keep=size, unit=unit, scope=scope, exclude=options.exclude)


def _methods(plan: report.Plan) -> tuple[str, ...]:
    """All methods, in their order."""
    return tuple(dict.fromkeys(name for methods in plan.methods.values() for name in methods))


def _compare(
    options: Prune,
    plan: report.Plan,
    subject: Subject,
    procedures: report.Procedures,
    stages: Stages,
    check_interrupt: Callable[[], None],
) -> report.Comparison:
    """Run all methods, with a bar on a terminal."""
    seeds = tuple(dict.fromkeys(options.seed))
    bar = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=Console(stderr=True), transient=True, disable=options.quiet or not sys.stderr.isatty(),
    )  # fmt: skip
    with bar:
        task = bar.add_task("preparing", total=plan.steps * len(seeds) + 1)

        def advance(step: str) -> None:
            check_interrupt()
            bar.update(task, description=step, advance=1)

        def trials() -> Iterator[report.Trial]:
            for seed in seeds:
                bar.update(task, description=f"seed {seed}: network and data")
                with stages.timed("networks and data"):
                    trial = subject.trial(seed)
                yield trial

        start = time.perf_counter()
        comparison = report.compare(trials(), plan, procedures=procedures, report=advance)
        spent = time.perf_counter() - start - stages.seconds.get("networks and data", 0.0)
        stages.seconds["choose, refit, evaluate"] = spent
    return comparison


def _story(plan: report.Plan, subject: Subject, comparison: report.Comparison) -> tuple[report.Story, dict[str, report.Keep]]:
    """The results, and for each unit the smallest size that still does its work, whose mask and network are kept."""
    shown = {unit: report.smallest_good(comparison.rows, unit, plan.kept_masks) for unit in plan.keeps}
    story = report.Story(
        rows=comparison.rows,
        labels=names.labels(),
        ours=plan.kept_masks,
        network=subject.network,
        data=subject.data,
        pictures={unit: (keep, comparison.masks[unit, keep].kept, subject.input_shape) for unit, keep in shown.items()},
    )
    return story, shown


def _files(
    comparison: report.Comparison, procedures: report.Procedures, shown: Mapping[str, report.Keep]
) -> dict[str, Callable[[Path], None]]:
    """What writes the masks and networks that are kept: mask.safetensors and pruned.safetensors are those of the first unit."""
    files: dict[str, Callable[[Path], None]] = {}
    for cell in shown.items():
        unit, mask = f"-{cell[0]}" if files else "", comparison.masks[cell]
        files[f"mask{unit}.safetensors"] = mask.save
        files[f"pruned{unit}.safetensors"] = partial(procedures.save, comparison.networks[cell], mask)
    return files


def _print_results(output: Console, story: report.Story) -> None:
    """What was done, and the table."""
    dense, blocks = report.arrange(story.rows)
    mark = "" if output.is_terminal else "*"
    table = report.results_table(dense, blocks, story.labels, ours=story.ours, width=output.width, mark=mark)
    output.print(f"\n{story.before} {story.reading('has a *' if mark else 'is bold')}\n", width=_line(output))
    output.print(table)


def _line(output: Console) -> int:
    """Letters in a line of text."""
    return min(output.width, LINE)


def _print_files(
    output: Console,
    folder: Path,
    story: report.Story,
    shown: Mapping[str, report.Keep],
    stages: Stages,
) -> None:
    """Where the files are."""
    kept = " and ".join(f"{report.keep_label(keep)} of the {unit}s" for unit, keep in shown.items())
    label = story.labels.get(story.ours, story.ours)
    output.print(
        f"\nOpen {folder / 'report.html'} for the figure and everything else. In the same folder: results.csv with every "
        f"number, accuracy.png and .svg, and what “{label}” made with seed {story.seeds[0]}, keeping {kept}: "
        f"mask*.safetensors and the networks, pruned*.safetensors. {story.saved} It took "
        f"{sum(stages.seconds.values()):.0f} seconds.\n",
        width=_line(output),
    )


def _write(
    folder: Path,
    options: Prune,
    plan: report.Plan,
    subject: Subject,
    story: report.Story,
    files: Mapping[str, Callable[[Path], None]],
    stages: Stages,
    check_interrupt: Callable[[], None],
) -> None:
    """All files, or none."""
    command = shlex.join(["annealsubnet", *sys.argv[1:]])
    sizes = {unit: ", ".join(map(report.keep_label, keeps)) for unit, keeps in plan.keeps.items()}
    asked = {
        **subject.facts,
        **{f"{unit}s kept": f"{text} of {_WHOLE[plan.scopes[unit]]}" for unit, text in sizes.items()},
        **({"nothing removed from": ", ".join(options.exclude)} if options.exclude else {}),
        "methods": ", ".join(story.labels.get(method, method) for method in _methods(plan)),
        "seeds": ", ".join(map(str, story.seeds)),
    }
    machine = {**provenance.machine(), **provenance.versions()}
    config = {
        "command": command,
        "options": asdict(options),
        "methods": list(_methods(plan)),
        "keeps": {unit: list(keeps) for unit, keeps in plan.keeps.items()},
        "seeds": list(story.seeds),
        "networks": dict(story.kept),
        "subject": dict(subject.facts),
        "machine": provenance.machine(),
        "versions": provenance.versions(),
        "seconds": stages.seconds,
    }
    report.write_report(
        folder,
        story,
        report.Facts(command, asked, machine, stages.seconds),
        files=files,
        config=config,
        overwrite=options.overwrite,
        check=check_interrupt,
    )
