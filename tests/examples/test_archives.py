"""Archives: what np.savez wrote comes back, and whatever else a .npz file may hold is refused in words one can follow."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from annealsubnet.examples import load, load_checkpoint
from annealsubnet.examples.archives import read_archive

WANTED = ("x_train", "y_train", "x_test", "y_test")


def archive(**changes) -> bytes:
    arrays = {name: np.arange(3000.0).reshape(1000, 3) for name in WANTED} | changes
    held = io.BytesIO()
    np.savez_compressed(held, **arrays)
    return held.getvalue()


def array() -> bytes:
    held = io.BytesIO()
    np.save(held, np.zeros((4, 5)))
    return held.getvalue()


def text_in_it() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as file:
        for name in WANTED:
            file.writestr(name, "1, 2, 3")
    return held.getvalue()


def changed() -> bytes:
    whole = bytearray(archive())
    whole[60:90] = bytes(30)
    return bytes(whole)


FILES = {
    "one array": array,
    "noise": lambda: np.random.default_rng(0).bytes(100),
    "nothing": lambda: b"",
    "text in it": text_in_it,
    "objects in it": lambda: archive(x_train=np.array([{}, {}])),
    "changed": changed,
    "truncated": lambda: archive()[:-100],
}


@pytest.mark.parametrize("kind", FILES)
def test_other_files_are_refused_in_words_one_can_follow(tmp_path, kind):
    path = tmp_path / "mine.npz"
    path.write_bytes(FILES[kind]())
    for read in (lambda: load(path, seed=0), lambda: load_checkpoint("mlpnet", path)):
        with pytest.raises(ValueError, match=r"mine\.npz: it |mine\.npz: \[.*are no arrays") as caught:
            read()
        assert "\n" not in str(caught.value) and "If you trust the file" not in str(caught.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_was_saved_comes_back(tmp_path, save):
    arrays = {"a": np.eye(3), "b": np.arange(4)}
    save(tmp_path / "saved.npz", **arrays)
    found = read_archive(tmp_path / "saved.npz")
    assert found.keys() == arrays.keys() and all(np.array_equal(found[name], arrays[name]) for name in arrays)
    assert read_archive(Path(tmp_path / "saved.npz"), ("b",)).keys() == {"b"}
