"""Load on a broker, whichever it is: client processes, what they count, what it cost the broker.

Knows no broker. One is a `Server`; how it is spoken to is a `WireProtocol`, for clients that only
move bytes, or a `ClientDriver`, for those that a library makes. `run` measures one `Work` with
either, `round_trips` one message at a time.
"""
