"""The client library: a connection to a broker, and what a program does with it.

Knows the protocol and the errors; knows nothing of the broker's own code. `connection` is
the wire half; `confirms`, `rounds` and `feed` are what protocol version 1 makes of it; `client`,
`subscription` and `message` are what a program sees.
"""
