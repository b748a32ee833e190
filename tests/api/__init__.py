"""Tests of the HTTP side, on a real server."""
