//! Endpoints: what serves a stream to its subscribers. The mirror image of [`crate::source`].

pub mod websocket;
