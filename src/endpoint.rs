//! Endpoints: what serves a stream to its subscribers. The mirror image of [`crate::source`].

pub mod answer;
pub mod body;
pub mod catching_up;
pub mod fanout;
pub mod lag;
pub mod page;
pub mod subscribers;
pub mod websocket;
