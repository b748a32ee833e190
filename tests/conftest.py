"""What holds for every test."""

import sys

# Hypothesis writes a failing example as a patch with libcst, which trips over zope.interface (it
# comes with the official client's Twisted) and ends the whole run without the test's name.
# Without this module it leaves the patch out.
sys.modules["hypothesis.extra._patching"] = None  # type: ignore[assignment]
