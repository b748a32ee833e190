"""Tests of what operations relies on."""
