"""Folders of child servers: locked while their process lives, swept when it was killed.

The lock is the kernel's, on the folder itself: it ends with the process that holds it, however
that ends, and there is no process id to be mistaken about.
"""

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ticker.errors import ConfigurationError

TRIES: Final = 5
"""How often to begin again when somebody sweeps a folder before it is locked."""

NAME_LENGTH: Final = 8
"""What ``mkdtemp`` puts behind a prefix."""


class FolderTakenError(ConfigurationError):
    """A living process has the folder."""


@contextmanager
def open_folder(
    prefix: str, place: str | None = None, *, owners: Collection[int] = ()
) -> Iterator[Path]:
    """A temporary folder that nobody else can look into; gone at the end.

    Folders of the same ``prefix`` whose process was killed are removed first. ``owners``: users
    besides ourselves whose folders they may be.
    """
    place = place or tempfile.gettempdir()
    sweep(prefix, place, owners={os.geteuid(), *owners})
    for _ in range(TRIES):
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
        try:
            descriptor = _open(folder)
        except FileNotFoundError:
            continue  # swept
        try:
            if _lock(descriptor) is False or not _is_at(folder, descriptor):
                continue  # being swept
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            return
        finally:
            os.close(descriptor)
    raise OSError(errno.EAGAIN, "temporary folders are swept as soon as they are made", place)


@contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Have a folder that is there to ourselves. A file system that knows no locks is trusted.

    Raises FolderTakenError if a living process holds it, OSError if it cannot be opened.
    """
    descriptor = _open(folder.resolve())
    try:
        if _lock(descriptor) is False:
            raise FolderTakenError(f"{folder} is in use by another process")
        yield
    finally:
        os.close(descriptor)


def sweep(prefix: str, place: str, *, owners: Collection[int]) -> None:
    """Remove the folders of dead processes. What is not surely such a folder stays."""
    for found in Path(place).glob(f"{prefix}{'?' * NAME_LENGTH}"):
        try:
            if found.is_symlink() or found.stat().st_uid not in owners:
                continue
            descriptor = _open(found)
        except OSError:
            continue  # gone, or not ours to enter
        try:
            if _lock(descriptor):
                shutil.rmtree(found, ignore_errors=True)
        finally:
            os.close(descriptor)


def _open(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def _lock(descriptor: int) -> bool | None:
    """Whether we have the lock; None where there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(folder: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(folder.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
