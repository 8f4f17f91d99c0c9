"""Which member of a shared subscription holds which key."""

from __future__ import annotations

import attrs

from blipmq.broker.attachment import Attachment


@attrs.define(eq=False)
class _Held:
    member: Attachment
    messages: int = 0


@attrs.define(eq=False)
class KeyTable:
    """A key stays with its member while it has unsettled messages; `messages` counts them.

    A new key goes to the member that holds the fewest.
    """

    _members: dict[Attachment, int] = attrs.Factory(dict)
    _held: dict[bytes, _Held] = attrs.Factory(dict)

    def join(self, member: Attachment) -> None:
        self._members.setdefault(member, 0)

    def leave(self, member: Attachment) -> None:
        """Its keys are free."""
        del self._members[member]
        for key in [key for key, held in self._held.items() if held.member is member]:
            del self._held[key]

    def holder(self, key: bytes, asking: Attachment) -> Attachment:
        """The member that holds the key; if nobody does, the one that gets it.

        A polled member gets a key only when it asks: nobody knows when it asks next.
        """
        held = self._held.get(key)
        if held is not None:
            return held.member
        able = (member for member in self._members if member.prefetch or member is asking)
        return min(able, key=self._members.__getitem__)

    def add(self, key: bytes, member: Attachment) -> None:
        """One more unsettled message of this key is with its holder."""
        held = self._held.get(key)
        if held is None:
            held = self._held[key] = _Held(member)
            self._members[member] += 1
        held.messages += 1

    def settle(self, key: bytes, member: Attachment) -> None:
        """A message that was added is settled."""
        held = self._held.get(key)
        if held is None or held.member is not member:
            return
        held.messages -= 1
        if not held.messages:
            del self._held[key]
            self._members[member] -= 1
