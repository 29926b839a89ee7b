"""NATS JetStream as it is: the connection, streams, consumers, deliveries, publishing with an acknowledgement."""
