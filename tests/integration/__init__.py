"""Real servers, real time."""
