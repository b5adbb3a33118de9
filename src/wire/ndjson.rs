//! Newline-delimited JSON: one object (RFC 8259) a line, times as RFC 3339 has them.
//!
//! A line is always a line: JSON escapes the line ends inside strings.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::display::Base64Display;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD as BASE64};
use humantime::Rfc3339Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::event::{Event, EventId, Gap, Kind, Merged, NewEvent, Payload, Snapshot};

/// The last microsecond that RFC 3339 can write: the year has four digits.
pub(crate) const MAX_TIME: u64 = 253_402_300_799_999_999;

/// What a line needs beside type, key and payload: names, id, time, quotes.
const MAX_OVERHEAD: usize = 160;

/// The longest reason in bytes.
const MAX_REASON: usize = 200;

const NO_DATA: &str = "neither data nor data_base64";
const TWO_DATA: &str = "both data and data_base64";

/// A line of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// An event.
    Event(Event),
    /// An event of a snapshot.
    Kept(Event),
    /// Events were lost here.
    Gap(Gap),
    /// A boundary of a snapshot.
    Snapshot(Snapshot),
    /// Events were merged here.
    Merged(Merged),
}

/// Appends the line of one event. A time behind the year 9999 is written as the end of that year.
pub fn encode(event: &Event, out: &mut Vec<u8>) {
    encode_event(event, false, out);
}

/// Appends the line of an event of a snapshot, which says so.
pub fn encode_kept(event: &Event, out: &mut Vec<u8>) {
    encode_event(event, true, out);
}

fn encode_event(event: &Event, snapshot: bool, out: &mut Vec<u8>) {
    let payload = &event.payload.bytes[..];
    let optional = [&event.event_type, &event.key];
    let optional: usize = optional.into_iter().flatten().map(|text| text.len()).sum();
    out.reserve(MAX_OVERHEAD + optional + payload.len());
    let (data, data_base64) = match event.payload.kind {
        Kind::Text => (Some(String::from_utf8_lossy(payload)), None),
        Kind::Binary => (None, Some(Base64Display::new(payload, &BASE64))),
    };
    let time = UNIX_EPOCH + Duration::from_micros(event.time.min(MAX_TIME));
    append(
        &EventObject {
            id: event.id,
            time: humantime::format_rfc3339_micros(time),
            event_type: event.event_type.as_deref(),
            key: event.key.as_deref(),
            data,
            data_base64,
            snapshot,
        },
        out,
    );
}

/// Appends the line that tells of lost events.
pub fn encode_gap(gap: &Gap, out: &mut Vec<u8>) {
    append(&GapLine { gap: gap.into() }, out);
}

/// Appends the boundary of a snapshot.
pub fn encode_snapshot(boundary: &Snapshot, out: &mut Vec<u8>) {
    let snapshot = boundary.into();
    append(&SnapshotLine { snapshot }, out);
}

/// Appends the line that tells of merged events.
pub fn encode_merged(merged: &Merged, out: &mut Vec<u8>) {
    let merged = merged.into();
    append(&MergedLine { merged }, out);
}

fn append(object: &impl Serialize, out: &mut Vec<u8>) {
    // The keys are strings, the time is one that has a date, and a Vec takes all that is written.
    serde_json::to_writer(&mut *out, object).expect("nothing here fails to be JSON");
    out.push(b'\n');
}

/// Reads a line of a stream that was written here; members that they do not write mean nothing.
pub fn decode(line: &[u8]) -> Result<Line, String> {
    let members: LineMembers = read_object(line)?;
    if let Some(gap) = members.gap {
        return gap.try_into().map(Line::Gap);
    }
    if let Some(merged) = members.merged {
        return merged.try_into().map(Line::Merged);
    }
    let is_kept = match (&members.id, members.snapshot) {
        (None, Some(raw)) => return decode_snapshot_object(raw.get()).map(Line::Snapshot),
        (_, raw) => raw.is_some_and(|raw| raw.get() == "true"),
    };
    let id = members.id.ok_or("neither an event with an id nor a gap")?;
    let time = members.time.ok_or("no time")?;
    let payload = match (members.data, members.data_base64) {
        (Some(data), None) => Payload::text(data),
        (None, Some(base64)) => binary(&base64.0)?,
        (None, None) => return Err(NO_DATA.to_owned()),
        (Some(_), Some(_)) => return Err(TWO_DATA.to_owned()),
    };
    let event = Event {
        id: parse_id(&id.0)?,
        time: parse_time(&time.0)?,
        event_type: members.event_type.map(|text| text.0.into()),
        key: members.key.map(|text| text.0.into()),
        payload,
    };
    Ok(match is_kept {
        true => Line::Kept(event),
        false => Line::Event(event),
    })
}

/// Reads a line that somebody publishes: `data` or `data_base64`, and perhaps `type` and `key`. A string as `data` is a
/// text payload; of any other value the payload is its JSON text exactly as it is written there.
///
/// What [`encode`] writes can be read as well; it becomes a new event, for other members mean nothing here.
pub fn decode_new(line: &[u8]) -> Result<NewEvent, String> {
    let members: NewMembers = read_object(line)?;
    let base64 = members
        .data_base64
        .map(|raw| string(raw, "data_base64"))
        .transpose()?;
    let payload = match (members.data, base64) {
        (Some(raw), None) if raw.get().starts_with('"') => Payload::text(string(raw, "data")?),
        (Some(raw), None) => Payload::text(raw.get()),
        (None, Some(base64)) => binary(&base64)?,
        (None, None) => return Err(NO_DATA.to_owned()),
        (Some(_), Some(_)) => return Err(TWO_DATA.to_owned()),
    };
    let text =
        |raw: Option<&RawValue>, name| raw.map(|raw| string(raw, name).map(Arc::from)).transpose();
    Ok(NewEvent {
        event_type: text(members.event_type, "type")?,
        key: text(members.key, "key")?,
        payload,
    })
}

#[derive(Serialize)]
struct EventObject<'a> {
    #[serde(serialize_with = "as_text")]
    id: EventId,
    #[serde(serialize_with = "as_text")]
    time: Rfc3339Timestamp,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    event_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Cow<'a, str>>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "as_optional_text"
    )]
    data_base64: Option<Base64Display<'a, 'static, GeneralPurpose>>,
    #[serde(skip_serializing_if = "is_false")]
    snapshot: bool,
}

#[derive(Serialize)]
struct SnapshotLine<'a> {
    snapshot: SnapshotObject<'a>,
}

#[derive(Serialize)]
struct MergedLine<'a> {
    merged: MergedObject<'a>,
}

/// A boundary of a snapshot as JSON. It is the same in all text formats.
#[derive(Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub(super) enum SnapshotObject<'a> {
    Begin {
        count: u64,
    },
    End {
        #[serde(borrow)]
        after: Option<Text<'a>>,
    },
}

impl From<&Snapshot> for SnapshotObject<'_> {
    fn from(boundary: &Snapshot) -> Self {
        match *boundary {
            Snapshot::Begin { count } => Self::Begin { count },
            Snapshot::End { after } => Self::End {
                after: after.map(id_text),
            },
        }
    }
}

impl TryFrom<SnapshotObject<'_>> for Snapshot {
    type Error = String;

    fn try_from(object: SnapshotObject<'_>) -> Result<Self, String> {
        Ok(match object {
            SnapshotObject::Begin { count } => Self::Begin { count },
            SnapshotObject::End { after } => Self::End {
                after: after.map(|after| parse_id(&after.0)).transpose()?,
            },
        })
    }
}

/// What was merged, as JSON.
#[derive(Serialize, Deserialize)]
#[serde(expecting = "an object")]
pub(super) struct MergedObject<'a> {
    #[serde(borrow)]
    after: Option<Text<'a>>,
    #[serde(borrow)]
    next: Option<Text<'a>>,
    merged: u64,
}

impl From<&Merged> for MergedObject<'_> {
    fn from(merged: &Merged) -> Self {
        Self {
            after: merged.after.map(id_text),
            next: merged.next.map(id_text),
            merged: merged.merged,
        }
    }
}

impl TryFrom<MergedObject<'_>> for Merged {
    type Error = String;

    fn try_from(object: MergedObject<'_>) -> Result<Self, String> {
        let id = |text: Option<Text<'_>>| text.map(|text| parse_id(&text.0)).transpose();
        Ok(Self {
            after: id(object.after)?,
            next: id(object.next)?,
            merged: object.merged,
        })
    }
}

fn id_text(id: EventId) -> Text<'static> {
    Text(id.to_string().into())
}

fn is_false(value: &bool) -> bool {
    !value
}

#[derive(Serialize)]
struct GapLine<'a> {
    gap: GapObject<'a>,
}

/// A gap as JSON. It is the same in all text formats.
#[derive(Serialize, Deserialize)]
#[serde(expecting = "an object")]
pub(super) struct GapObject<'a> {
    #[serde(borrow)]
    after: Option<Text<'a>>,
    #[serde(borrow)]
    next: Option<Text<'a>>,
    lost: Option<u64>,
}

/// A string, borrowed where it has no escapes. serde borrows a `Cow` only where it is not inside an `Option`.
#[derive(Serialize, Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> From<&'a Gap> for GapObject<'a> {
    fn from(gap: &'a Gap) -> Self {
        Self {
            after: gap.after.as_deref().map(|after| Text(after.into())),
            next: gap.next.map(id_text),
            lost: gap.lost,
        }
    }
}

impl TryFrom<GapObject<'_>> for Gap {
    type Error = String;

    fn try_from(object: GapObject<'_>) -> Result<Self, String> {
        Ok(Self {
            after: object.after.map(|after| after.0.into()),
            next: object.next.map(|next| parse_id(&next.0)).transpose()?,
            lost: object.lost,
        })
    }
}

/// Reads what is behind `"gap":` in a line.
pub(super) fn decode_gap_object(text: &str) -> Result<Gap, String> {
    read_object::<GapObject>(text.as_bytes())?.try_into()
}

/// Reads what is behind `"snapshot":` in a line that is no event.
pub(super) fn decode_snapshot_object(text: &str) -> Result<Snapshot, String> {
    read_object::<SnapshotObject>(text.as_bytes())?.try_into()
}

/// Reads what is behind `"merged":` in a line.
pub(super) fn decode_merged_object(text: &str) -> Result<Merged, String> {
    read_object::<MergedObject>(text.as_bytes())?.try_into()
}

#[derive(Deserialize)]
struct LineMembers<'a> {
    #[serde(borrow)]
    gap: Option<GapObject<'a>>,
    #[serde(borrow)]
    merged: Option<MergedObject<'a>>,
    #[serde(borrow)]
    snapshot: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    time: Option<Text<'a>>,
    #[serde(borrow, rename = "type")]
    event_type: Option<Text<'a>>,
    #[serde(borrow)]
    key: Option<Text<'a>>,
    data: Option<String>,
    #[serde(borrow)]
    data_base64: Option<Text<'a>>,
}

/// Members as they are written, so that a wrong one can be named.
#[derive(Deserialize)]
struct NewMembers<'a> {
    #[serde(borrow, rename = "type")]
    event_type: Option<&'a RawValue>,
    #[serde(borrow)]
    key: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    data_base64: Option<&'a RawValue>,
}

/// `null` is a value like others, and not the absence of one.
pub(super) fn even_null<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

fn as_text<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn as_optional_text<S: Serializer>(
    value: &Option<impl fmt::Display>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

pub(super) fn read_object<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, String> {
    // serde would read the values of an array as the members in their order.
    match line.trim_ascii_start().first() {
        Some(b'{') => serde_json::from_slice(line).map_err(|error| reason(&error)),
        _ => Err("not a JSON object".to_owned()),
    }
}

/// What is wrong, without the line number, which is always that of the only line.
pub(super) fn reason(error: &serde_json::Error) -> String {
    let position = format!(" at line {} column {}", error.line(), error.column());
    let text = error.to_string();
    let text = text.strip_suffix(&position).unwrap_or(&text);
    match error.classify() {
        // It may quote a value, and that may be long.
        Category::Data => text[..text.floor_char_boundary(MAX_REASON)].to_owned(),
        Category::Eof => "not valid JSON: it is cut off".to_owned(),
        Category::Syntax | Category::Io => {
            format!("not valid JSON: {text} (column {})", error.column())
        }
    }
}

pub(super) fn string<'a>(raw: &'a RawValue, name: &str) -> Result<Cow<'a, str>, String> {
    let text: Result<Text<'a>, _> = serde_json::from_str(raw.get());
    text.map(|text| text.0)
        .map_err(|error| match error.classify() {
            Category::Data => format!("{name} is not a string"),
            // All else has been checked, but not that surrogates (RFC 8259, section 8.2) come in pairs.
            _ => format!("{name} has an escape that is no character"),
        })
}

fn binary(base64: &str) -> Result<Payload, String> {
    match BASE64.decode(base64) {
        Ok(bytes) => Ok(Payload::binary(bytes)),
        Err(_) => Err("data_base64 is not base64".to_owned()),
    }
}

fn parse_id(text: &str) -> Result<EventId, String> {
    text.parse().map_err(|_| "not an event id".to_owned())
}

fn parse_time(text: &str) -> Result<u64, String> {
    humantime::parse_rfc3339(text)
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .map(|since| since.as_micros() as u64)
        .ok_or_else(|| "not a time of RFC 3339 in UTC".to_owned())
}

#[cfg(test)]
pub(super) mod tests;
