"""TaskIQ over NATS JetStream: the doorbell. It makes things fast, never makes them right."""
