"""Protocol version 2: messages are pushed, publishes confirmed, and a lost connection replaced.

`link` outlives connections, as do the `attachment`s and the `unconfirmed` publishes that it
carries from one to the next; `connection` and `lease` end with theirs.
"""
