"""What the service knows, and its doors to the outside."""

__version__ = "0.1.0"
