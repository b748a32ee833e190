"""A Kite server in a box: REST, WebSocket, one coherent seeded market, and faults on demand."""
