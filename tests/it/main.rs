//! Tests of the real binary, against servers and clients of this file's neighbours and of other people.

mod chain;
mod cli;
mod docs;
mod flags;
mod frames;
mod handshake;
mod harness;
mod peers;
mod produce;
mod secrets;
mod shutdown;
mod slow;
mod subscribers;
mod tail;
mod tls;
mod upstream;
