"""Folders of our own: locked while their process lives, swept afterwards, and nobody else's."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ticker.local import folders
from ticker.local.folders import FolderTakenError, hold_folder, open_folder, sweep

PREFIX = "ticker-of-a-test-"
MINE = (os.geteuid(),)


@contextmanager
def living_owner(place: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process with a folder of its own, which it has filled."""
    source = f"""
        import time
        from ticker.local.folders import open_folder

        with open_folder({PREFIX!r}, {str(place)!r}) as folder:
            (folder / "data").mkdir()
            (folder / "data" / "file").write_text("something")
            print(folder, flush=True)
            time.sleep(60)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    with process:
        assert process.stdout is not None
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            with suppress(ProcessLookupError):
                process.kill()


def test_a_folder_is_ours_alone_and_gone_at_the_end(tmp_path: Path) -> None:
    with open_folder(PREFIX, str(tmp_path)) as folder:
        (folder / "file").write_text("something")
        assert folder.stat().st_mode & 0o777 == 0o700
        assert len(folder.name) == len(PREFIX) + folders.NAME_LENGTH
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_killed_owners_folder_is_swept_and_a_living_ones_is_not(tmp_path: Path) -> None:
    with living_owner(tmp_path) as (living, kept), living_owner(tmp_path) as (killed, stale):
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert (stale / "data" / "file").exists()
        with open_folder(PREFIX, str(tmp_path)) as own:
            assert sorted(tmp_path.iterdir()) == sorted([kept, own])
        assert living.poll() is None
        assert (kept / "data" / "file").exists()


def test_what_is_not_surely_ours_stays(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / f"{PREFIX}12345678").symlink_to(elsewhere)
    (tmp_path / f"{PREFIX}file1234").write_text("a file")
    (tmp_path / f"{PREFIX}of-another-length").mkdir()
    (tmp_path / "another-12345678").mkdir()
    before = sorted(tmp_path.iterdir())
    sweep(PREFIX, str(tmp_path), owners=MINE)
    assert sorted(tmp_path.iterdir()) == before


def test_folders_of_other_users_stay(tmp_path: Path) -> None:
    (tmp_path / f"{PREFIX}12345678").mkdir()
    sweep(PREFIX, str(tmp_path), owners=[os.geteuid() + 1])
    assert len(list(tmp_path.iterdir())) == 1
    sweep(PREFIX, str(tmp_path), owners=MINE)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_swept_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By somebody who starts in the same moment; what they leave is another folder of that name."""
    lock = folders._lock
    swept: list[int] = []

    def sweep_first(descriptor: int) -> bool | None:
        if not swept:
            (found,) = tmp_path.iterdir()
            found.rmdir()
            found.mkdir()
        swept.append(descriptor)
        return lock(descriptor)

    monkeypatch.setattr(folders, "_lock", sweep_first)
    with open_folder(PREFIX, str(tmp_path)) as folder:
        assert folder.is_dir()
        monkeypatch.undo()
        sweep(PREFIX, str(tmp_path), owners=MINE)
        assert list(tmp_path.iterdir()) == [folder]
    assert len(swept) == 2


def test_a_folder_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    with (
        hold_folder(tmp_path),
        pytest.raises(FolderTakenError, match="in use"),
        hold_folder(tmp_path),
    ):
        pass
    with hold_folder(tmp_path):
        pass
