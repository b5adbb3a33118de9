//! A redis-server of a test.
