"""Prices outside market hours: a private, mutable market inside, immutable snapshots outside."""
