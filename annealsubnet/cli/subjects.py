"""Subjects: what gets pruned, as a trial (network, calibration data, test data) for each seed.

Either a named network and data set, trained here or loaded from a checkpoint, or whatever the user's own function
returns.
"""

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from annealsubnet.cli.commands import Source
from annealsubnet.cli.refusals import Refusal
from annealsubnet.report import Trial

CALIBRATION_LIMIT = 5000
"""Training examples of a named data set that are read unless more are asked for."""
TRAINING_EXAMPLES = 60_000
"""A network without a checkpoint is trained until it has seen about so many examples (at least four epochs)."""
BATCH = 500


@dataclass(frozen=True)
class Subject:
    """What gets pruned.

    Attributes:
        network: in words.
        data: in words.
        trial: seed to network and data.
        facts: choices worth reporting.
        input_shape: of one example, if images.
    """

    network: str
    data: str
    trial: Callable[[int], Trial]
    facts: Mapping[str, str] = field(default_factory=dict)
    input_shape: tuple[int, ...] | None = None


def subject_of(source: Source) -> Subject:
    """What the command line asks for.

    Args:
        source: the options of any command.

    Returns:
        The subject.

    Raises:
        Refusal: The options don't go together.
        ValueError, OSError: There is no such data, network or checkpoint, or it can't be read.
    """
    if source.calibration is not None and source.calibration < 1:
        raise Refusal(f"--calibration is {source.calibration}; at least one example is needed.")
    if source.subject is None:
        return named_subject(source.data, source.network, source.checkpoint, source.calibration)
    named = [f"--{name}" for name in ("data", "network", "checkpoint") if getattr(source, name) is not None]
    if named:
        raise Refusal(f"{source.subject} brings its own network and data; leave out {' and '.join(named)}.")
    return own_subject(source.subject, source.calibration)


def named_subject(data: str | None, network: str | None, checkpoint: Path | None, calibration: int | None) -> Subject:
    """A named network on a named data set or a file.

    Args:
        data: name or path; what the network is for if `None`.
        network: name; one that fits the data if `None`.
        checkpoint: its weights; it is trained if `None`.
        calibration: how many training examples may be read.

    Returns:
        The subject; nothing is loaded for other seeds than the first until they are asked for.

    Raises:
        Refusal: They don't go together.
        ValueError: There is no such data, network or checkpoint, or it can't be read.
    """
    from annealsubnet.examples import load, load_checkpoint, named_network, network_for

    if checkpoint is not None and network is None:
        raise Refusal(f"--checkpoint {checkpoint} needs --network with the name of the network that it holds weights of.")
    named = named_network(network) if network is not None else None
    source = data or (named.data if named else "digits")
    if named and named.data != source and not source.endswith(".npz"):
        raise Refusal(f"The network {named.name} is for {named.data}, not for {source}; use --data {named.data} or a file.")
    loaded = load_checkpoint(named.name, checkpoint) if named and checkpoint else None
    first = load(source, seed=0)
    fitting = named or network_for(first)
    limit = min(len(first.train.labels), CALIBRATION_LIMIT) if calibration is None else calibration
    _check_fit(fitting, first, source)
    first.batches("train", BATCH, examples=limit)  # refuses a calibration that there isn't, before any training

    def trial(seed: int) -> Trial:
        here = load(source, seed=seed)
        model = loaded
        if model is None:
            model = _trained(fitting.build(seed=seed), here.batches("train", BATCH, normalize=fitting.normalize), seed)
        calibrating = here.batches("train", BATCH, normalize=fitting.normalize, examples=limit)
        return Trial(seed, model, calibrating, here.batches("test", BATCH, normalize=fitting.normalize))

    weights = f"with the weights of {checkpoint}" if checkpoint else "trained here, anew for each seed"
    facts = {
        "network": f"{fitting.name}, {weights}",
        "data": f"{source}: {len(first.train.labels):,} training examples, {len(first.test.labels):,} test examples",
        "calibration": f"{limit:,} training examples",
    }
    words = f"the network {fitting.name} ({'with given weights' if checkpoint else 'trained here'})"
    return Subject(words, _in_words(source), trial, facts, first.input_shape)


def own_subject(name: str, calibration: int | None) -> Subject:
    """The user's own network and data.

    Args:
        name: "MODULE:FUNCTION"; the module is looked for in the current folder first.
        calibration: how many calibration examples may be read; all if `None`.

    Returns:
        The subject.

    Raises:
        Refusal: There is no such function, or it returns something else.
    """
    function = _imported(name)
    takes_seed = _takes_seed(function, name)

    def trial(seed: int) -> Trial:
        returned = function(seed=seed) if takes_seed else function()
        if not isinstance(returned, tuple) or len(returned) != 3:
            raise Refusal(
                f"{name} returned {_shown(returned)}; it must return three things: the model, the calibration data and the "
                "test data, each as batches of (inputs, labels) or as one pair of arrays (inputs, labels)."
            )
        model, calibrating, test = returned
        reading = _batches(calibrating, f"the calibration data of {name}", seed=seed, limit=calibration)
        return Trial(seed, model, reading, _batches(test, f"the test data of {name}"))

    facts = {
        "network and data": f"{name}, called {'with each seed' if takes_seed else 'once for each seed, without arguments'}",
        "calibration": f"{calibration:,} examples" if calibration else "all that it gives",
    }
    return Subject(f"the network of {name}", "its own data", trial, facts)


def _in_words(source: str) -> str:
    """A data set's name in a sentence."""
    known = {"digits": "scikit-learn's handwritten digits", "mnist": "MNIST", "cifar10": "CIFAR-10"}
    return known.get(source, source)


def _trained(model: Any, batches: Any, seed: int) -> Any:
    """The network after a short training."""
    from annealsubnet.examples import train

    epochs = max(4, round(TRAINING_EXAMPLES / batches.examples))
    return train(model, batches, seed=seed, epochs=epochs, learning_rate=3e-3)


def _check_fit(network: Any, data: Any, source: str) -> None:
    """Refuse a network that can't take the data's inputs, or has fewer outputs than the data have classes."""
    import jax

    try:
        outputs = jax.eval_shape(network.build(seed=0), network.normalize(data.train.inputs[:1])).shape[1]
    except (TypeError, ValueError) as error:
        raise Refusal(f"The network {network.name} can't take inputs of shape {data.input_shape}, as {source} has.") from error
    if data.num_classes > outputs:
        raise Refusal(
            f"The network {network.name} has {outputs} outputs, but the labels of {source} run to {data.num_classes - 1}; give "
            f"labels from 0 to {outputs - 1}, or leave out --network (and --checkpoint) for one that fits."
        )


def _imported(name: str) -> Callable[..., Any]:
    """The function that MODULE:FUNCTION names."""
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute or module.endswith(".py") or "/" in module:
        raise Refusal(f"{name!r} doesn't name a function; write MODULE:FUNCTION, such as mine:digits for digits in mine.py.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise
        raise Refusal(f"There is no module {module} in {here} or among the installed ones.") from error
    function = getattr(found, attribute, None)
    if not callable(function):
        own = sorted(key for key, value in vars(found).items() if inspect.isfunction(value) and value.__module__ == module)
        raise Refusal(f"{module} has no function {attribute}; it has {', '.join(own) or 'none'}.")
    return function


def _takes_seed(function: Callable[..., Any], name: str) -> bool:
    """Whether `function` has a parameter `seed`; it may not need any other."""
    parameters = inspect.signature(function).parameters
    needed = [
        key
        for key, one in parameters.items()
        if key != "seed" and one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]
    if needed:
        raise Refusal(f"{name} needs {', '.join(needed)}; it is called with seed= alone, or with nothing.")
    return "seed" in parameters


def _batches(data: Any, what: str, *, seed: int = 0, limit: int | None = None) -> Any:
    """Batches that can be read again and again: of a pair of arrays, or the user's own."""
    if hasattr(data, "__next__"):
        raise Refusal(f"{what} can be read only once (it is a {type(data).__name__}); return a list, or a pair of arrays.")
    pair = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
    arrays = [np.asarray(one) for one in pair if hasattr(one, "shape")]
    if len(arrays) != sum(one is not None for one in pair):
        return data if limit is None else _first(data, limit, what)
    if any(array.ndim == 0 or len(array) != len(arrays[0]) for array in arrays) or len(arrays[0]) == 0:
        shapes = " and ".join(str(array.shape) for array in arrays)
        raise Refusal(f"{what} has arrays of shapes {shapes}; give one label for each of at least one example.")
    if limit is not None:
        if limit > len(arrays[0]) or limit < 1:
            raise Refusal(f"--calibration is {limit}, but {what} has {len(arrays[0])} examples.")
        chosen = np.random.default_rng(seed).permutation(len(arrays[0]))[:limit]
        arrays = [array[chosen] for array in arrays]
    pieces = [tuple(array[start : start + BATCH] for array in arrays) for start in range(0, len(arrays[0]), BATCH)]
    return [piece if len(piece) == 2 else piece[0] for piece in pieces]


def _first(batches: Iterable[Any], limit: int, what: str) -> list[Any]:
    """The first `limit` examples of `batches`."""
    taken: list[Any] = []
    left = limit
    for batch in batches:
        if left < 1:
            break
        labeled = isinstance(batch, tuple | list)
        pieces = tuple(np.asarray(part)[:left] for part in (batch if labeled else [batch]))
        left -= len(pieces[0])
        taken.append(pieces if labeled else pieces[0])
    if left > 0 or not taken:
        raise Refusal(f"--calibration is {limit}, but {what} has {limit - left} examples.")
    return taken


def _shown(value: Any) -> str:
    """What `value` is, in a few words."""
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
