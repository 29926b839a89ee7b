"""NATS JetStream itself: the connection, streams, consumers, deliveries, publishing with an acknowledgement."""
