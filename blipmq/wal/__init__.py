"""Bytes on the disk: record format, segments, the log and its recovery.

Plain blocking file calls, all of them through `disk.Disk`. Knows neither Trio nor a clock.
"""
