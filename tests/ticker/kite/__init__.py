"""Tests of the broker's protocol."""
