"""When the exchanges trade: a dated data file and pure functions of it."""
