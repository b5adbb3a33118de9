//! Redis: Pub/Sub and streams.
