//! Tests of the real binary, against servers and clients of this file's neighbours and of other people.

mod browser;
mod chain;
mod cli;
mod docs;
mod flags;
mod frames;
mod handshake;
mod harness;
mod http_source;
mod limits;
mod links;
mod peers;
mod produce;
mod protocol;
mod proxying;
mod publish;
mod reading;
mod secrets;
mod shutdown;
mod slow;
mod subscribers;
mod survival;
mod tail;
mod tls;
mod upstream;
