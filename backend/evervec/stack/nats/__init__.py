"""The embedded NATS server: its configuration, its process, whether it answers."""
