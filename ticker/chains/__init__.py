"""Option chains as a reader sees them: from the board, and from Redis."""
