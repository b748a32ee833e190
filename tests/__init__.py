"""Tests: they mirror the three packages; integration/ and benchmarks/ stand beside them."""
