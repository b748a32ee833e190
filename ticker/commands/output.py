"""Standard output of a command."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ticker.errors import ConfigurationError, OutputError


@contextmanager
def writing_to_stdout() -> Iterator[None]:
    """Ctrl-C, and a reader who has seen enough (`... | head`), end a command without an error."""
    if sys.stdout is None:
        raise ConfigurationError("standard output is closed")
    try:
        yield
    except KeyboardInterrupt:
        return
    except BrokenPipeError:
        # What is still buffered goes nowhere, instead of failing once more when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputError(f"cannot write: {error.strerror}") from None
