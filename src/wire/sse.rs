//! Server-sent events (WHATWG HTML, section 9.2): each event as one block of lines, and a [`Parser`] of anybody's
//! stream.
//!
//! What is encoded here ends lines with LF only and has no empty line but the one that ends a block. So `\n\n` stands in
//! it where a block ends and nowhere else: whoever has a slice of many blocks can cut it there.

mod parser;

use std::borrow::Cow;
use std::io::Write;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use memchr::memchr2;
use serde::{Deserialize, Serialize};

use super::RESERVED_TYPES;
use super::ndjson::{GapObject, MergedObject, SnapshotObject};
use crate::event::{Event, Gap, Kind, Merged, Snapshot};
pub use parser::{Item, Parser, TooLarge};

/// A comment and the end of a block that has no data: it keeps a connection alive and means nothing (WHATWG HTML,
/// section 9.2.7).
pub const HEARTBEAT: &[u8] = b":\n\n";

/// The event type that tells of lost events. Such a block has no id, so that it never becomes what a reader resumes
/// from, and an event of this type that somebody published can be told from it.
pub const GAP_TYPE: &str = "wsevent.gap";

/// The event type of a snapshot's boundaries. Without an id, like all that is no event.
pub const SNAPSHOT_TYPE: &str = "wsevent.snapshot";

/// The event type that tells of merged events.
pub const MERGED_TYPE: &str = "wsevent.merged";

/// The event type that tells of the end of a key. The format has no room for keys, and an empty event alone would not say whose
/// it is; so such a block has the id of the event, and the key as JSON.
pub const DELETED_TYPE: &str = "wsevent.deleted";

/// How the data of a binary payload begins: a `data:` URL (RFC 2397).
const BINARY_MARKER: &str = "data:application/octet-stream;base64,";

/// What a block needs beside type and payload: the names of its fields, the longest id (34 bytes), line ends.
const MAX_OVERHEAD: usize = 64;

/// Appends the block of one event.
///
/// In text each CR, LF and CRLF becomes the end of a `data:` line, the only line end that the format has: a reader gets
/// LF for all of them. A type cannot hold a line end at all; CR and LF are left out of it.
pub fn encode(event: &Event, out: &mut Vec<u8>) {
    writeln!(out, "id: {}", event.id).expect("a Vec takes all that is written");
    match deleted(event) {
        Some(deleted) => encode_notice(DELETED_TYPE, &deleted, out),
        None => encode_without_id(event, event.event_type.as_deref(), out),
    }
}

/// An empty text with a key: where the state is kept, that key is no more.
#[derive(Serialize, Deserialize)]
#[serde(expecting = "an object")]
struct Deleted<'a> {
    key: Cow<'a, str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    event_type: Option<Cow<'a, str>>,
}

fn deleted(event: &Event) -> Option<Deleted<'_>> {
    let is_empty_text = event.payload.kind == Kind::Text && event.payload.bytes.is_empty();
    let key = event.key.as_deref().filter(|_| is_empty_text)?;
    Some(Deleted {
        key: key.into(),
        event_type: event.event_type.as_deref().map(Into::into),
    })
}

/// The key and the type of the empty event that the data of a [`DELETED_TYPE`] block with an id tells of.
pub fn decode_deleted(data: &str) -> Result<(String, Option<String>), String> {
    let deleted: Deleted = serde_json::from_str(data).map_err(|error| error.to_string())?;
    let event_type = deleted.event_type.map(Cow::into_owned);
    Ok((deleted.key.into_owned(), event_type))
}

/// Appends the block of an event of a snapshot: the same without an id, as a browser that came back behind it would miss what it
/// has not got of the snapshot.
pub fn encode_kept(event: &Event, out: &mut Vec<u8>) {
    // Somebody else's server may give an event such a type. Without an id it would be taken for a notice.
    let event_type = event.event_type.as_deref();
    let event_type = event_type.filter(|event_type| !RESERVED_TYPES.contains(event_type));
    encode_without_id(event, event_type, out);
}

fn encode_without_id(event: &Event, event_type: Option<&str>, out: &mut Vec<u8>) {
    let payload = &event.payload.bytes[..];
    out.reserve(MAX_OVERHEAD + event_type.map_or(0, str::len) + payload.len());
    if let Some(event_type) = event_type {
        out.extend_from_slice(b"event: ");
        for part in event_type.split(['\r', '\n']) {
            out.extend_from_slice(part.as_bytes());
        }
        out.push(b'\n');
    }
    match event.payload.kind {
        Kind::Text => encode_text(payload, out),
        Kind::Binary => encode_binary(payload, out),
    }
    out.push(b'\n');
}

/// One `data:` line for each line of `text`, and one for an empty text: without any, a reader would drop the event. The
/// space is always written, for a reader takes one away.
fn encode_text(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    loop {
        out.extend_from_slice(b"data: ");
        let Some(end) = memchr2(b'\r', b'\n', rest) else {
            out.extend_from_slice(rest);
            out.push(b'\n');
            return;
        };
        out.extend_from_slice(&rest[..end]);
        out.push(b'\n');
        let behind = &rest[end..];
        rest = behind.strip_prefix(b"\r\n").unwrap_or(&behind[1..]);
    }
}

fn encode_binary(bytes: &[u8], out: &mut Vec<u8>) {
    let len = base64::encoded_len(bytes.len(), true).expect("a payload is far from all of memory");
    out.reserve(b"data: ".len() + BINARY_MARKER.len() + len + b"\n\n".len());
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(BINARY_MARKER.as_bytes());
    let start = out.len();
    out.resize(start + len, 0);
    BASE64
        .encode_slice(bytes, &mut out[start..])
        .expect("the length is the encoder's own");
    out.push(b'\n');
}

/// Appends the block that tells of lost events: of the type [`GAP_TYPE`] and without an id.
pub fn encode_gap(gap: &Gap, out: &mut Vec<u8>) {
    encode_notice(GAP_TYPE, &GapObject::from(gap), out);
}

/// Appends the boundary of a snapshot. The end is followed by a block that has nothing but the id of where the reader stands now:
/// that sets what a browser resumes from, and is no event to it (WHATWG HTML, section 9.2.6).
pub fn encode_snapshot(boundary: &Snapshot, out: &mut Vec<u8>) {
    encode_notice(SNAPSHOT_TYPE, &SnapshotObject::from(boundary), out);
    if let Snapshot::End { after: Some(id) } = boundary {
        write!(out, "id: {id}\n\n").expect("a Vec takes all that is written");
    }
}

/// Appends the block that tells of merged events.
pub fn encode_merged(merged: &Merged, out: &mut Vec<u8>) {
    encode_notice(MERGED_TYPE, &MergedObject::from(merged), out);
}

/// A block without an id.
fn encode_notice(event_type: &str, data: &impl Serialize, out: &mut Vec<u8>) {
    write!(out, "event: {event_type}\ndata: ").expect("a Vec takes all that is written");
    // JSON escapes line ends.
    serde_json::to_writer(&mut *out, data).expect("a Vec takes all that is written");
    out.extend_from_slice(b"\n\n");
}

/// The block that a stream begins with: how long readers wait before they connect again, and where they stand.
///
/// A browser forgets its last event id at the first empty line of a new connection, unless that sets one (WHATWG HTML,
/// section 9.2.6): if it lost the connection before the first event, it would come back without. `position` is the id of
/// the event that it is behind; what cannot stand in an id is left out.
pub fn opening(delay: Duration, position: Option<&str>) -> Vec<u8> {
    let mut block = format!("retry: {}\n", delay.as_millis());
    if let Some(id) = position.filter(|id| !id.contains(['\r', '\n', '\0'])) {
        block += &format!("id: {id}\n");
    }
    block += "\n";
    block.into_bytes()
}

/// The bytes of a binary payload if `data` is what [`encode`] makes of one; anything else is text. A text that looks like
/// that cannot be told from it.
pub fn decode_binary(data: &str) -> Option<Vec<u8>> {
    BASE64.decode(data.strip_prefix(BINARY_MARKER)?).ok()
}

/// The gap that the data of a [`GAP_TYPE`] block without an id tells of.
pub fn decode_gap(data: &str) -> Result<Gap, String> {
    super::ndjson::decode_gap_object(data)
}

/// The boundary that the data of a [`SNAPSHOT_TYPE`] block without an id is.
pub fn decode_snapshot(data: &str) -> Result<Snapshot, String> {
    super::ndjson::decode_snapshot_object(data)
}

/// What the data of a [`MERGED_TYPE`] block without an id tells.
pub fn decode_merged(data: &str) -> Result<Merged, String> {
    super::ndjson::decode_merged_object(data)
}

#[cfg(test)]
mod tests;
