"""SIGHUP: the configuration is read again, and what may change while the daemon runs is changed.

All of it or nothing: everything is read and checked first, then it is changed in one step.
"""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from typing import Final

import attrs

from blipmq import logs
from blipmq.auth import KeyRing
from blipmq.broker.stats import CloseReason
from blipmq.config import Config, settings
from blipmq.errors import ConfigError
from blipmq.nursery.certificate import Certificate, open_certificate
from blipmq.nursery.state import DaemonState

CHANGEABLE: Final = frozenset(
    {
        "allowed_api_keys",
        "admin.allowed_keys",
        "logging.level",
        "shutdown.drain_timeout_ms",
        "shutdown.linger_timeout_ms",
        "tls.certificate",
        "tls.key",
        "websocket.allowed_origins",
        *(f"limits.{name}" for name in attrs.fields_dict(Config().limits.__class__)),
    }
)
"""The settings that may change while the daemon runs; whether there is TLS may not."""


@attrs.frozen
class _Next:
    """What was read and checked, and is to be from now on."""

    config: Config
    changed: tuple[str, ...]
    certificate: Certificate | None


async def run_reloads(state: DaemonState) -> None:
    """Reload whenever `state.reload` has rung, for ever. What cannot be used is logged."""
    while True:
        await state.reload.wait()
        await reload(state)


async def reload(state: DaemonState) -> None:
    """Read and check in a thread, then change everything at once; or log why nothing changes."""
    try:
        following = await state.outside.run_blocking(partial(_read, state))
    except ConfigError as error:
        for problem in str(error).splitlines():
            state.log.error("reload refused", error=problem)
        return
    closed = _apply(state, following)
    changed = ", ".join(following.changed) or "nothing"
    state.log.info("reloaded", changed=changed, connections_closed=closed)


def _read(state: DaemonState) -> _Next:
    """In a thread; changes nothing. Raises ConfigError."""
    before, config = state.config, state.outside.load()
    changed = [key for key in settings() if attrgetter(key)(config) != attrgetter(key)(before)]
    fixed = [key for key in changed if key not in CHANGEABLE]
    if bool(config.tls.certificate) != bool(before.tls.certificate):
        fixed.append("tls.certificate")
    if fixed:
        raise ConfigError(
            f"{', '.join(fixed)}: cannot change while the daemon runs; put back what was there,"
            " or restart the daemon; nothing was changed"
        )
    return _Next(config, tuple(changed), open_certificate(config.tls))


def _apply(state: DaemonState, following: _Next) -> int:
    """One step, which cannot fail. How many connections were closed with their keys."""
    config, before = following.config, state.config
    state.config = config
    state.keys = KeyRing(config.allowed_api_keys)
    state.admin_keys = KeyRing(config.admin.allowed_keys)
    state.broker.set_limits(config.limits)
    if following.certificate is not None:
        state.certificate = following.certificate
    if config.logging.level != before.logging.level:
        logs.set_level(config.logging.level)
    closed = 0
    heartbeat_ms = config.limits.heartbeat_ms
    for connection in list(state.connections):
        owner = connection.session.owner
        if owner and not state.keys.has_id(owner):
            closed += connection.close(CloseReason.KEY_REMOVED)
        elif heartbeat_ms != before.limits.heartbeat_ms:
            connection.set_heartbeat(heartbeat_ms / 1000)
    state.look()
    return closed
