"""Results appear whole or not at all, and nobody else's files are touched."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from annealsubnet.report import choose_folder, complete_folder
from annealsubnet.report.folder import FORMAT, MARKER

DEFAULT = Path("annealsubnet-results")


def results(folder: Path, text: str = "first") -> None:
    """A folder as a run leaves it."""
    with complete_folder(folder, overwrite=True) as draft:
        (draft / "results.csv").write_text(text)
        (draft / MARKER).write_text(json.dumps({"format": FORMAT, "files": ["results.csv", MARKER]}))


def chosen(name: str | None, *, overwrite: bool = False) -> Path:
    """Where the results would go."""
    with choose_folder(None if name is None else Path(name), default=DEFAULT, overwrite=overwrite) as folder:
        return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_second_run_without_a_name_gets_a_number() -> None:
    assert chosen(None) == DEFAULT
    results(DEFAULT)
    assert chosen(None) == Path("annealsubnet-results-2")
    Path("annealsubnet-results-2").write_text("a file in the way")
    assert chosen(None) == Path("annealsubnet-results-3")
    Path("annealsubnet-results-3").symlink_to("nowhere")
    assert chosen(None) == Path("annealsubnet-results-4")
    assert chosen(None, overwrite=True) == DEFAULT


def test_runs_at_the_same_time_get_a_name_each() -> None:
    together = Barrier(8, timeout=60)

    def run(number: int) -> Path:
        together.wait()
        with choose_folder(None, default=DEFAULT, overwrite=False) as folder:
            together.wait()
            results(folder, str(number))
        return folder

    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(run, range(8)))
    assert set(folders) == {DEFAULT, *(Path(f"{DEFAULT}-{number}") for number in range(2, 9))}
    assert [(folder / "results.csv").read_text() for folder in folders] == [str(number) for number in range(8)]
    assert len(list(Path().iterdir())) == 8


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_reserved_name_is_free_again_unless_something_is_there(monkeypatch, error) -> None:
    with pytest.raises(error), choose_folder(None, default=DEFAULT, overwrite=False) as folder:
        assert folder.is_dir()
        Path("elsewhere").mkdir()
        monkeypatch.chdir("elsewhere")
        raise error
    assert [path.name for path in Path("..").iterdir()] == ["elsewhere"]
    with pytest.raises(error), choose_folder(None, default=DEFAULT, overwrite=False) as folder:
        (folder / "notes.txt").write_text("mine")
        raise error
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_was_named_is_neither_made_nor_removed(overwrite) -> None:
    Path("empty").mkdir()
    for name in ("empty", "new"):
        assert chosen(name, overwrite=overwrite) == Path(name)
    assert [path.name for path in Path().iterdir()] == ["empty"]


def test_new_and_empty_folders_are_taken() -> None:
    Path("empty").mkdir()
    for name in ("empty", "new", "deeply/nested/new"):
        folder = chosen(name)
        results(folder)
        assert (folder / "results.csv").read_text() == "first"


def test_a_folder_with_other_files_is_refused_even_to_overwrite() -> None:
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=r"mine exists and holds other files \(thesis.tex\)"):
            chosen("mine", overwrite=overwrite)
    results(Path("ours"))
    Path("ours/notes.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"other files \(notes.txt\)"):
        chosen("ours", overwrite=True)


def test_earlier_results_are_replaced_only_on_demand() -> None:
    results(Path("ours"))
    with pytest.raises(ValueError, match="holds earlier results; choose another folder with --out, or add --overwrite"):
        chosen("ours")
    results(chosen("ours", overwrite=True), "second")
    assert Path("ours/results.csv").read_text() == "second"
    assert sorted(path.name for path in Path().iterdir()) == ["ours"]


@pytest.mark.parametrize("marker", ["{", "[]", '{"format": "something else", "files": ["results.csv"]}', "null"])
def test_a_folder_with_somebody_elses_config_is_foreign(marker: str) -> None:
    Path("theirs").mkdir()
    Path("theirs", MARKER).write_text(marker)
    with pytest.raises(ValueError, match="holds other files"):
        chosen("theirs", overwrite=True)


def test_a_file_a_link_and_a_path_through_a_file_are_refused() -> None:
    Path("file").write_text("")
    Path("link").symlink_to("nowhere")
    for name, says in (("file", "not a folder"), ("link", "not a folder"), ("file/below", "file is not a folder")):
        with pytest.raises(ValueError, match=says):
            chosen(name)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_is_interrupted_leaves_nothing(error) -> None:
    with pytest.raises(error), complete_folder(Path("new"), overwrite=False) as draft:
        (draft / "results.csv").write_text("half")
        raise error
    assert list(Path().iterdir()) == []


def test_what_is_interrupted_leaves_earlier_results_as_they_were() -> None:
    results(Path("ours"))
    with pytest.raises(KeyboardInterrupt), complete_folder(Path("ours"), overwrite=True):
        raise KeyboardInterrupt
    assert Path("ours/results.csv").read_text() == "first"
    assert [path.name for path in Path().iterdir()] == ["ours"]


def test_earlier_results_come_back_when_the_last_step_fails(monkeypatch) -> None:
    results(Path("ours"))
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise OSError("disk full")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="disk full"):
        results(Path("ours"), "second")
    assert Path("ours/results.csv").read_text() == "first"
    assert [path.name for path in Path().iterdir()] == ["ours"]


def test_a_folder_filled_in_the_meantime_is_left_alone() -> None:
    with pytest.raises(ValueError, match="holds other files"), complete_folder(Path("new"), overwrite=True):
        Path("new").mkdir()
        Path("new/theirs.txt").write_text("theirs")
    assert [path.name for path in Path().rglob("*")] == ["new", "theirs.txt"]


def test_files_are_seen_only_when_all_are_there() -> None:
    with complete_folder(Path("new"), overwrite=False) as draft:
        (draft / "results.csv").write_text("done")
        assert not Path("new").exists()
    assert Path("new/results.csv").read_text() == "done"
