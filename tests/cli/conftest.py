"""Stand-ins for the methods, the refit and the evaluation, so that these tests are about the command alone."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from annealsubnet import cli
from annealsubnet.cli import commands
from annealsubnet.cli.prune import prune
from annealsubnet.cli.refusals import Refusal

OWN = """
import numpy as np

def softmax(inputs):
    return np.asarray(inputs)[:, :3]

def arrays(seed):
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(1200, 4)).astype("float32")
    return inputs, inputs[:, :3].argmax(1)

def pairs(seed=0):
    return softmax, arrays(seed), arrays(seed + 100)

def batches():
    return softmax, [(np.ones((8, 4), "float32"), np.zeros(8, int))] * 5, [arrays(1)]

def once():
    return softmax, iter([arrays(0)]), [arrays(1)]

def two():
    return softmax, arrays(0)

def demanding(path, seed):
    return softmax, arrays(seed), arrays(seed)

def broken():
    return 1 / 0

number = 3
"""


@dataclass(frozen=True)
class FakeMask:
    """A mask of nothing but its size."""

    kept: dict[str, np.ndarray]

    @property
    def kept_count(self) -> int:
        return sum(int(array.sum()) for array in self.kept.values())

    @property
    def size(self) -> int:
        return sum(array.size for array in self.kept.values())

    def save(self, path: Any) -> None:
        path.write_bytes(b"mask")


class FakeProcedures:
    """Accuracy from the model itself; own weights and the refit keep it, and the refit is nearer to the dense network."""

    def prepare(self, model: Any, batches: Any) -> Any:
        return model

    def evaluate(self, model: Any, batches: Any, mask: Any = None) -> Any:
        hits = [np.asarray(model(inputs)).argmax(-1) == labels for inputs, labels in batches]
        right = np.concatenate(hits)
        return SimpleNamespace(accuracy=right.mean(), loss=0.5, examples=len(right), parameters=10, nonzeros=5, flops=20)

    def adopt(self, model: Any, own: Any) -> Any:
        return model

    def distance(self, model: Any, other: Any, batches: Any) -> float:
        return 1.0 if other is model else 0.5

    def refit(self, model: Any, mask: Any, batches: Any) -> Any:
        list(batches)
        return partial(model)

    def save(self, model: Any, mask: Any, path: Any) -> None:
        path.write_bytes(b"network")


def choose(model: Any, batches: Any, *, keep: Any, unit: str, scope: str, seed: int) -> tuple[FakeMask, Any]:
    """Random units."""
    count = keep if isinstance(keep, int) else round(40 * keep)
    if count > 40:
        raise Refusal(f"keep is {keep}, but there are 40 {unit}s.")
    return FakeMask({"fc1": np.random.default_rng(seed).permutation(40) < count}), None


METHODS = {"annealed": choose, "magnitude": choose, "random": choose, "taylor": choose}


@pytest.fixture
def command(monkeypatch, tmp_path) -> Callable[..., int]:
    """`annealsubnet` with the stand-ins, in an empty folder with a module `mine`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.setattr("sys.path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)

    def with_stand_ins(options: commands.Prune, *, check_interrupt: Callable[[], None]) -> None:
        prune(options, methods=METHODS, procedures=FakeProcedures())

    monkeypatch.setattr("annealsubnet.cli.prune.prune", with_stand_ins)
    jax.config.update("jax_platforms", "cpu")
    return lambda *words: cli.main([str(word) for word in words])
