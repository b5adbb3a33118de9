//! NATS and JetStream.
