"""BlipMQ beside other brokers: the same work for each, in turns, and the ratios that came of it."""
