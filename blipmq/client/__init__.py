"""The client library: connections to brokers, and what a program does with them.

Knows the protocol and the errors; knows nothing of the broker's own code. `client`,
`subscription`, `publisher`, `message` and `batch` are what a program sees. `dial` and `handshake`
lead to a broker; what follows depends on the protocol version that it speaks: `push` is the
engine of version 2, `polling` that of version 1, and `wire` is what they share.
"""
