"""A bad request is answered by one sentence and exit code 2; a bug keeps its traceback."""

from pathlib import Path

import numpy as np
import pytest

from annealsubnet.cli.refusals import Refusal, is_refusal, sentence
from annealsubnet.report import parse_keep

BAD = {
    "keep above one": (["mine:pairs", "--keep", "1.5"], "keep is '1.5'; give a fraction above 0 and up to 1"),
    "keep zero": (["mine:pairs", "--keep", ".5", "0"], "keep is '0'"),
    "keep no number": (["mine:pairs", "--keep", "half"], "keep is 'half'"),
    "keep one unit and all of them": (["mine:pairs", "--keep", "1.0", "1"], "--keep asks for 1 unit and for all of them"),
    "unknown method": (["mine:pairs", "--method", "magic"], "no method 'magic'; use one or more of annealed, magnitude"),
    "unknown data": (["--data", "imagenet"], "no data set 'imagenet'; use digits, mnist, cifar10"),
    "missing data file": (["--data", "none.npz"], "no data file none.npz"),
    "unknown network": (["--network", "vgg"], "no network 'vgg'; use one of digits-mlp"),
    "network for other data": (["--network", "mlpnet", "--data", "digits"], "mlpnet is for mnist, not for digits"),
    "network of other shape": (["--network", "mlpnet", "--data", "small.npz"], "can't take inputs of shape (5,)"),
    "checkpoint alone": (["--checkpoint", "w.npz"], "needs --network"),
    "missing checkpoint": (["--network", "digits-mlp", "--checkpoint", "w.npz"], "no checkpoint w.npz"),
    "calibration zero": (["--calibration", "0"], "--calibration is 0"),
    "calibration beyond the data": (["--calibration", "9999"], "examples=9999 of digits's train part; it has 1078"),
    "calibration beyond your arrays": (["mine:pairs", "--calibration", "5000"], "has 1200 examples"),
    "calibration beyond your batches": (["mine:batches", "--calibration", "50"], "has 40 examples"),
    "no colon": (["mine"], "write MODULE:FUNCTION"),
    "a file": (["mine.py:pairs"], "write MODULE:FUNCTION"),
    "no module": (["yours:pairs"], "There is no module yours in"),
    "no function": (["mine:none"], "mine has no function none; it has arrays, batches, broken, demanding, once, pairs"),
    "not a function": (["mine:number"], "mine has no function number"),
    "a demanding function": (["mine:demanding"], "mine:demanding needs path"),
    "two things": (["mine:two"], "mine:two returned a tuple of 2; it must return three things"),
    "readable once": (["mine:once"], "can be read only once"),
    "own and named": (["mine:pairs", "--data", "digits"], "brings its own network and data; leave out --data"),
    "other files": (["mine:pairs", "--out", "thesis"], "thesis exists and holds other files (chapter.tex)"),
    "other files, overwriting": (["mine:pairs", "--out", "thesis", "--overwrite"], "holds other files (chapter.tex)"),
    "out is a file": (["mine:pairs", "--out", "small.npz"], "small.npz is not a folder"),
    "count too large": (["mine:pairs", "--keep", "41"], "keep is 41"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_gets_one_sentence_and_leaves_everything_alone(command, capsys, name) -> None:
    small = np.zeros((4, 5), np.float32), np.array([0, 1, 0, 1])
    np.savez("small.npz", x_train=small[0], y_train=small[1], x_test=small[0], y_test=small[1])
    Path("thesis").mkdir()
    Path("thesis/chapter.tex").write_text("years of work")
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*") if "__pycache__" not in path.parts}
    words, says = BAD[name]
    code = command("prune", *words)
    captured = capsys.readouterr()
    after = {path: path.stat().st_mtime_ns for path in Path().rglob("*") if "__pycache__" not in path.parts}
    assert code == 2
    assert says in captured.err and "Traceback" not in captured.err
    assert captured.err.startswith("annealsubnet: ") and captured.err.count("\n") == 1
    assert captured.out == ""
    assert before == after


@pytest.mark.parametrize("words", [["prune", "--kep", ".5"], ["prune", "--unit", "layer"], ["prune", "--seed", "x"], []])
def test_words_that_cannot_be_parsed_exit_with_2(command, capsys, words) -> None:
    with pytest.raises(SystemExit) as stopped:
        command(*words)
    assert stopped.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_users_own_bugs_keep_their_traceback(command) -> None:
    with pytest.raises(ZeroDivisionError):
        command("prune", "mine:broken")
    assert not list(Path().glob("annealsubnet-results*"))


def caught(work) -> Exception:
    try:
        work()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_a_sentence_of_this_package_is_a_refusal() -> None:
    error = caught(lambda: parse_keep("2.5"))
    assert is_refusal(error) and sentence(error).startswith("keep is '2.5'")
    assert is_refusal(Refusal("no"))


def test_what_other_code_raises_is_a_bug() -> None:
    def ours(text: str) -> None:
        raise ValueError("raised in a test, not in the package")

    assert not is_refusal(caught(lambda: ours("")))
    assert not is_refusal(caught(lambda: np.zeros(3).reshape(2, 2)))
    assert not is_refusal(caught(lambda: parse_keep(None))), "an operation gone wrong within the package is a bug too"


def test_a_file_error_names_the_file(tmp_path) -> None:
    error = caught(lambda: (tmp_path / "none").read_text())
    assert is_refusal(error)
    assert str(tmp_path / "none") in sentence(error) and "No such file" in sentence(error)
