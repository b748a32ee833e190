"""Tests of the package ticker."""
