"""The broker's protocol, Kite Connect v3: the wire, the socket, the REST interface, the login."""
