//! Buses: other people's servers, publishers and subscribers around a hop.

mod lines;
mod nats;
mod redis;
mod webhook;
mod zeromq;
