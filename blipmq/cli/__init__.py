"""The commands. Only here is `blipmq.nursery` imported."""
