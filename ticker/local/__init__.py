"""Servers that a run or a test starts for itself."""
