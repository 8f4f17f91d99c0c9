"""What a broker was asked and what it did, held against what it promises. Knows no broker.

`history` is told of every event, in order; `message` and `subscription` are what it remembers.
"""
