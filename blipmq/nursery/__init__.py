"""Waiting: the tasks of the daemon, one file each, and the order in which they end."""
