"""Bytes on the wire: frames, runs of messages, the decoder and the encoder.

Knows nothing of topics, subscriptions, sockets or time.
"""
