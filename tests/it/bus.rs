//! Buses: other people's servers, publishers and subscribers around a hop.

mod lines;
mod nats;
mod on_demand;
mod redis;
mod webhook;
mod zeromq;
