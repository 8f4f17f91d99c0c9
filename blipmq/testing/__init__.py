"""For the tests of applications: a broker in this process, and streams that misbehave.

Everything runs on Trio's own clock, without a socket and without a thread, so a test under
`autojump_clock` waits for nothing. With pytest-trio, the fixtures `blipmq_broker` and
`blipmq_client` are there by themselves.
"""

from __future__ import annotations

from blipmq.testing.broker import InProcessBroker, open_broker
from blipmq.testing.faults import FaultyStream

__all__ = ["open_broker", "InProcessBroker", "FaultyStream"]
