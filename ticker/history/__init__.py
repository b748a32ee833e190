"""Candles of the past, with the Greeks that they imply."""
