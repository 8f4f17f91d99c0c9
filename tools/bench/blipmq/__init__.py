"""BlipMQ to the load engine: the daemon as a server, both protocol versions, the client library."""
