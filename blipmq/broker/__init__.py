"""Decisions: what is published, who gets it, when it comes back, when it is given up.

Knows neither Trio nor a clock nor a disk: time comes in as an argument (`now`, seconds of a
monotonic clock), facts for the log go out as records, and every method returns at once.
"""
