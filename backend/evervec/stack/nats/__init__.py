"""The embedded NATS server: its configuration, its process, and its health check."""
