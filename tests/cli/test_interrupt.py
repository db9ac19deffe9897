"""Ctrl-C and SIGTERM, at any moment, leave complete files or none, and exit codes 130 and 143."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from annealsubnet import cli
from annealsubnet.cli import commands
from annealsubnet.cli.interrupts import remembered_interrupts

SLOW = """
import sys, time
from types import SimpleNamespace
import numpy as np
from functools import partial
from annealsubnet import cli
import annealsubnet.cli.prune as action

class Mask:
    kept, kept_count, size = {"fc1": np.ones(40, bool)}, 20, 40
    def save(self, path):
        path.write_bytes(b"mask")
        print("writing", flush=True)
        time.sleep(float(sys.argv[1]))

class Procedures:
    def prepare(self, model, batches):
        return model
    def evaluate(self, model, batches, mask=None):
        return SimpleNamespace(accuracy=0.9, loss=0.1, examples=10, parameters=10, nonzeros=5, flops=2)
    def adopt(self, model, own):
        return model
    def distance(self, model, other, batches):
        return 0.0
    def refit(self, model, mask, batches):
        print("refitting", flush=True)
        time.sleep(float(sys.argv[2]))
        return model
    def save(self, model, mask, path):
        path.write_bytes(b"network")

methods = {"annealed": lambda *words, **options: (Mask(), None)}
action.prune = partial(action.prune, methods=methods, procedures=Procedures())
words = ["prune", "own:data", "--seed", "0", "--unit", "weight", "--keep", ".5"]
sys.exit(cli.main(words))
"""
OWN = "import numpy as np\ndef data():\n    return 0, [np.ones((4, 2))], [(np.ones((4, 2)), np.ones(4, int))]\n"


def interrupted(
    folder: Path, at: str, *, writing: float, refitting: float, ignored: bool = False, sent: int = signal.SIGINT
) -> tuple[int, str]:
    """Exit code and stderr of a run that is `sent` a signal when it says `at`; `ignored`: as a shell starts background jobs."""
    (folder / "own.py").write_text(OWN)
    (folder / "slow.py").write_text(SLOW)
    root = str(Path(cli.__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1"}
    words = [sys.executable, "slow.py", str(writing), str(refitting)]
    if ignored:
        words = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *words]
    with subprocess.Popen(
        words,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == at:
                time.sleep(0.1)
                process.send_signal(sent)
                break
        _, error = process.communicate(timeout=60)
    return process.returncode, error


@pytest.mark.parametrize(("at", "ignored"), [("refitting", False), ("writing", False), ("refitting", True)])
def test_ctrl_c_leaves_nothing_behind(tmp_path, at, ignored) -> None:
    code, error = interrupted(tmp_path, at, writing=30, refitting=30 if at == "refitting" else 0, ignored=ignored)
    assert code == 130
    assert "interrupted" in error and "Traceback" not in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own.py", "slow.py"]


def test_sigterm_is_answered_as_ctrl_c_is(tmp_path) -> None:
    code, error = interrupted(tmp_path, "refitting", writing=0, refitting=30, sent=signal.SIGTERM)
    assert code == 143
    assert "interrupted" in error and "Traceback" not in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own.py", "slow.py"]


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_is_remembered_when_a_library_drops_it() -> None:
    with remembered_interrupts() as check:
        check()
        with contextlib.suppress(KeyboardInterrupt):  # as a compiled callback does
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            check()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_before_anything_is_loaded_is_answered_too(monkeypatch, capsys) -> None:
    def interrupted_at_once(words: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "parse", interrupted_at_once)
    assert cli.main(["prune"]) == 130
    assert "interrupted" in capsys.readouterr().err
