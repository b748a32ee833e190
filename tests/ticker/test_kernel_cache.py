"""Compiled kernels are never those of other sources."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import ticker
from ticker.kernel_cache import VARIABLE, sources_digest, use_kernel_cache

PACKAGE = Path(ticker.__file__).parent


def test_any_source_of_a_kernel_changes_the_digest(tmp_path: Path) -> None:
    copy = tmp_path / "ticker"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    before = sources_digest(copy)
    assert before == sources_digest(PACKAGE)
    for name in ("ticks.py", "board.py", "greeks/kernel.py", "snapshots/formatter.py"):
        with (copy / name).open("a") as file:
            file.write("# changed\n")
        assert sources_digest(copy) != before
        before = sources_digest(copy)
    (copy / "watch.py").write_text("")
    assert sources_digest(copy) == before, "what is not compiled does not matter"


def test_a_chosen_folder_is_kept_and_inherited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    folder = use_kernel_cache()
    assert folder.parent == tmp_path
    assert os.environ[VARIABLE] == str(folder)
    assert use_kernel_cache() == folder


def test_where_nothing_can_be_written_it_is_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "/dev/null/nowhere")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = use_kernel_cache()
    assert folder.parent.parent == tmp_path
    assert folder.is_dir()


@pytest.mark.slow
def test_a_temporary_one_of_a_user_without_a_home_goes_with_the_process(tmp_path: Path) -> None:
    code = (
        "import os, pathlib\n"
        "from ticker.kernel_cache import use_kernel_cache\n"
        "def nowhere(): raise RuntimeError('Could not determine home directory.')\n"
        "pathlib.Path.home = nowhere\n"
        "print(use_kernel_cache().is_dir())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={"TMPDIR": str(tmp_path)},
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == "True\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_service_compiles_into_it(tmp_path: Path) -> None:
    code = (
        "from ticker.kernel_cache import use_kernel_cache\n"
        "use_kernel_cache()\n"
        "from ticker.validation import judge\n"
        "print(judge._cache.cache_path)"
    )
    environment = os.environ | {VARIABLE: str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.startswith(str(tmp_path / "kernels-"))
