"""A file that holds one access token and nothing else."""

import os
import tempfile
from pathlib import Path

import trio


async def load_token(file: Path) -> str:
    """The token in the file; empty if it is missing, empty or unreadable, as while replaced."""
    try:
        return (await trio.Path(file).read_text(encoding="utf-8")).strip()
    except (OSError, UnicodeDecodeError):
        return ""


async def save_token(file: Path, token: str) -> None:
    """Replace the file by one that only its owner can read. A reader sees the old or the new one.

    Raises OSError.
    """
    await trio.to_thread.run_sync(_save, file, token)


def _save(file: Path, token: str) -> None:
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(f"{token}\n")
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
