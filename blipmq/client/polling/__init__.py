"""Protocol version 1, which older brokers speak: messages are polled for, publishes never answered.

Everything that only version 1 needs is in here.
"""
