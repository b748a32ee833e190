"""From wishes to sockets: what is to be streamed, where, and what changes that."""
