"""What goes wrong, and how: each fault of a plan is a task of its own."""

from __future__ import annotations

import trio

from tests.simulation.host import Host
from tests.simulation.network import Network
from tests.simulation.plan import Fault


class _After(trio.abc.Instrument):
    """Calls `what` when tasks have made so many steps more."""

    def __init__(self, steps: int, host: Host, fault: Fault) -> None:
        self.left = steps
        self.host = host
        self.fault = fault

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left < 0:
            trio.lowlevel.remove_instrument(self)
            _end(self.host, self.fault)


async def inflict(fault: Fault, host: Host, network: Network) -> None:
    """Wait until its time has come, then let it happen."""
    await trio.sleep_until(fault.at)
    host.trace.note("fault", fault.kind, fault.who)
    if fault.kind in ("kill", "power cut", "stop", "cancel"):
        host.down_seconds = fault.seconds
        if fault.calls is not None:
            host.weather.on_crash = lambda: _end(host, fault)
            host.weather.crash_in = fault.calls
        else:
            trio.lowlevel.add_instrument(_After(fault.steps, host, fault))
    elif fault.kind in ("reset", "half-open", "partition", "deaf"):
        _disturb(fault, network)
    elif fault.kind == "clock jump":
        host.history.clock_jumped = True
        host.clock_offset_ms += round(fault.seconds * 1000)
    elif fault.kind == "bit flip":
        host.flip = True
    else:
        await _disk(fault, host)


def _end(host: Host, fault: Fault) -> None:
    if host.calm:
        return
    match fault.kind:
        case "kill":
            host.crash("kill")
        case "power cut":
            host.crash("power cut")
        case "stop":
            host.signal()
        case _:
            host.cancel()


def _disturb(fault: Fault, network: Network) -> None:
    until = trio.current_time() + fault.seconds
    if fault.kind == "partition":
        network.partition([fault.who], until)
        return
    for line in network.of(fault.who):
        match fault.kind:
            case "reset":
                line.reset()
            case "half-open":
                line.lose()
            case _:
                line.stall(until, up=False)


async def _disk(fault: Fault, host: Host) -> None:
    weather = host.weather
    until = trio.current_time() + fault.seconds
    match fault.kind:
        case "full disk":
            host.trouble(until)
            weather.capacity = host.disk.used + 100 * (fault.calls or 0)
            await trio.sleep_until(until)
            weather.capacity = None
        case "slow disk":
            host.trouble(until)
            host.slowness = fault.seconds / 4
            await trio.sleep_until(until)
            host.slowness = 0.0
        case "write error":
            weather.fail_write = fault.calls or 0
        case _:
            weather.fail_sync = fault.calls or 0
