"""What runs: one file, one task function; ``service.py`` is the tree that holds them."""
