"""Where compiled kernels are kept: one folder for each state of their sources.

numba's own cache looks only at the file of the function it compiled. A kernel that reads a
constant or calls a function of another file would, after an upgrade, go on with the old one, and
prices would be wrong without a sign. Here any change to any of these files is another folder.
"""

import atexit
import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from ticker.local.folders import open_folder

VARIABLE: Final = "NUMBA_CACHE_DIR"
TEMPORARY: Final = "ticker-run-kernels-"
"""How a temporary folder is called, up to a random end."""

_MARK: Final = "kernels-"
_CONSTANTS: Final = ("ticks.py",)
"""Files that compile nothing, but whose constants kernels are compiled with."""


def use_kernel_cache(base: Path | None = None) -> Path:
    """Name the folder to numba, which must not have been imported yet; returns it.

    It lies in ``base``; by default in what ``NUMBA_CACHE_DIR`` names, else in the user's cache.
    Where that cannot be written, or there is none, it is a temporary one and kernels are compiled
    at each start.
    """
    given = os.environ.get(VARIABLE)
    if given and Path(given).name.startswith(_MARK):
        return Path(given)  # a parent process has done this
    name = _MARK + sources_digest(Path(__file__).parent)
    try:
        folder = (base or (Path(given) if given else _user_cache())) / name
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # a RuntimeError: a user without a home
        folder = _open_temporary() / name
        folder.mkdir()
    os.environ[VARIABLE] = str(folder)
    return folder


def _open_temporary() -> Path:
    """A folder that is there for as long as this process."""
    held = ExitStack()
    atexit.register(held.close)
    return held.enter_context(open_folder(TEMPORARY))


def sources_digest(package: Path) -> str:
    """A digest of everything that compiled code is made from, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in _sources(package):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _sources(package: Path) -> Iterator[Path]:
    for path in sorted(package.rglob("*.py")):
        if path.name in _CONSTANTS or "njit" in path.read_text(encoding="utf-8"):
            yield path


def _user_cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "ticker"
