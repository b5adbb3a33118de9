//! The hop link `wsevent.v1`, as docs/protocol.md describes it: WebSocket messages that begin with a header line.
//!
//! ```text
//!   0H3B6Q2ZK7M9T-42 t=1763711000123456 type=trade key=BTC%20EUR⏎        an event: the payload follows, unchanged
//!   !gap after=0H3B6Q2ZK7M9T-42 next=0H3B6Q2ZK7M9T-50 lost=7             a control line
//! ```

use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;
use std::str::FromStr;

use hyper::header::HeaderName;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::websocket;
use crate::event::{Event, EventId, Gap, Kind, Origin, Payload, Snapshot};

/// The subprotocol's name (RFC 6455, section 1.9).
pub const SUBPROTOCOL: &str = "wsevent.v1";

/// The header by which an answer says which instance it is from; its value is the id. In the answer to a handshake it shows, too, that a
/// hop has understood the subprotocol, and has not just taken what it was offered.
pub const INSTANCE: HeaderName = HeaderName::from_static("wsevent-instance");

/// The header of a handshake by which a peer says that it is one, before its hello does: a stream that comes and goes with its readers does
/// not get events from its own peers for its sake.
pub const SCOPE: HeaderName = HeaderName::from_static("wsevent-scope");

/// What a peer says with it, and in its hello.
pub const LOCAL: &str = "local";

/// What a value must not contain as it is: spaces end it, and commas separate the items of a list.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b',').add(b'%').add(b'@');

/// What a message on a hop link is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// An event with its id.
    Event(Event),
    /// A control line that is known.
    Control(Control),
    /// One that is not: for a later version, to be passed over.
    Unknown,
}

/// A control line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// The first line from downstream.
    Hello(Hello),
    /// The answer to it, the first line from upstream.
    Welcome(Welcome),
    /// Events are missing here.
    Gap(Gap),
    /// The path to the origin has changed.
    Path(Vec<Instance>),
    /// A boundary of a snapshot, which only who asks for it gets.
    Snapshot(Snapshot),
}

/// What a downstream hop wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hello {
    /// Who asks.
    pub id: Option<Origin>,
    /// Of each origin the last event it has; of these origins it wants what follows.
    pub have: Vec<EventId>,
    /// Where to begin with other origins.
    pub from: Begin,
    /// Whether it wants the state that the upstream keeps.
    pub state: StateWish,
    /// Which events it wants.
    pub scope: Scope,
}

/// Which events of a stream go over a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// All.
    #[default]
    All,
    /// Those that have not come to the upstream from a peer of its own: between peers each event goes one step only.
    Local,
}

/// Whether a hop wants the state that its upstream keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StateWish {
    /// It does not know what to do with it.
    #[default]
    No,
    /// It has none of it yet.
    Yes,
    /// It has had it, and wants it again if it has missed events.
    Missed,
}

/// Where a link begins, as far as it does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Begin {
    /// With the next event.
    Live,
    /// So many events earlier.
    Last(u64),
    /// With the oldest event that is held.
    #[default]
    All,
    /// With the first event there ever was: of what is not held any more there is a gap notice.
    First,
    /// Right behind this event.
    After(EventId),
}

/// What an upstream hop says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Welcome {
    /// The instances that the events come through, the nearest first.
    pub path: Vec<Instance>,
    /// So many of the events that follow were in the log before.
    pub backlog: u64,
    /// Whether the link goes on where it was: `yes`, `partial` or `no`.
    pub resumed: Option<Box<str>>,
}

/// An instance on the path of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its id.
    pub id: Origin,
    /// Where it serves, in its own words.
    pub address: Box<str>,
    /// So many links away from whoever tells of it.
    pub distance: u8,
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}@{}",
            self.id,
            utf8_percent_encode(&self.address, ESCAPED)
        )
    }
}

impl FromStr for Instance {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let (id, address) = text.split_once('@').unwrap_or((text, ""));
        Ok(Self {
            id: id.parse().map_err(|_| Wrong("an instance without an id"))?,
            address: decode_value(address)?.into(),
            distance: 0,
        })
    }
}

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wrong(pub &'static str);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a message of {SUBPROTOCOL}: {}", self.0)
    }
}

impl std::error::Error for Wrong {}

/// Adds the frame header and the header line of the message that carries `event`; its payload follows.
pub fn encode_header(event: &Event, out: &mut Vec<u8>) {
    let line = whole_header_line(event);
    let len = line.len() + event.payload.bytes.len();
    out.extend_from_slice(websocket::message_header(event.payload.kind, len).as_ref());
    out.extend_from_slice(&line);
}

/// Adds the whole message that carries `event`, compressed, if it is smaller so: see [`websocket::encode_deflated`].
pub fn encode_deflated(event: &Event, out: &mut Vec<u8>) -> bool {
    let parts: [&[u8]; 2] = [&whole_header_line(event), &event.payload.bytes];
    websocket::encode_deflated(event.payload.kind, &parts, out)
}

fn whole_header_line(event: &Event) -> Vec<u8> {
    let mut line = Vec::with_capacity(64);
    write_header_line(event, &mut line);
    line.push(b'\n');
    line
}

fn write_header_line(event: &Event, line: &mut Vec<u8>) {
    let _ = write!(line, "{} t={}", event.id, event.time);
    for (name, value) in [("type", &event.event_type), ("key", &event.key)] {
        if let Some(value) = value {
            let _ = write!(line, " {name}={}", utf8_percent_encode(value, ESCAPED));
        }
    }
}

/// The header line of an event, without its end: for where it stands in another envelope.
pub fn header_line(event: &Event) -> String {
    let mut line = Vec::with_capacity(64);
    write_header_line(event, &mut line);
    String::from_utf8(line).expect("it is ASCII")
}

/// The longest header line that there can be: an id, a time, and two labels of 1 KiB, of which each byte may be escaped.
pub const MAX_HEADER_LINE: usize = 8 << 10;

/// Reads a header line, without its end, that stands by itself: it must have a time, so that it is not taken for one by accident.
pub fn decode_header_line(line: &[u8], payload: Payload) -> Result<Event, Wrong> {
    let line = std::str::from_utf8(line).map_err(|_| Wrong("its header line is no text"))?;
    match line.split(' ').any(|field| field.starts_with("t=")) {
        true => decode_header(line, payload),
        false => Err(Wrong("its header line has no time")),
    }
}

/// Adds the frame of a control line.
pub fn encode_control(control: &Control, out: &mut Vec<u8>) {
    let line = control.to_string();
    out.extend_from_slice(websocket::message_header(Kind::Text, line.len()).as_ref());
    out.extend_from_slice(line.as_bytes());
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello(hello) => {
                f.write_str("!hello")?;
                if let Some(id) = hello.id {
                    write!(f, " id={id}")?;
                }
                match hello.from {
                    Begin::Live => f.write_str(" from=live")?,
                    Begin::Last(count) => write!(f, " from={count}")?,
                    Begin::All => f.write_str(" from=all")?,
                    Begin::First => f.write_str(" from=first")?,
                    Begin::After(id) => write!(f, " from={id}")?,
                }
                match hello.state {
                    StateWish::No => {}
                    StateWish::Yes => f.write_str(" state=yes")?,
                    StateWish::Missed => f.write_str(" state=missed")?,
                }
                if hello.scope == Scope::Local {
                    f.write_str(" scope=local")?;
                }
                write_list(f, "have", &hello.have)
            }
            Self::Snapshot(Snapshot::Begin { count }) => {
                write!(f, "!snapshot state=begin count={count}")
            }
            Self::Snapshot(Snapshot::End { after }) => {
                f.write_str("!snapshot state=end")?;
                after.map_or(Ok(()), |after| write!(f, " after={after}"))
            }
            Self::Welcome(welcome) => {
                write!(f, "!welcome backlog={}", welcome.backlog)?;
                if let Some(resumed) = &welcome.resumed {
                    write!(f, " resumed={resumed}")?;
                }
                write_path(f, &welcome.path)
            }
            Self::Gap(gap) => {
                f.write_str("!gap")?;
                if let Some(after) = &gap.after {
                    write!(f, " after={}", utf8_percent_encode(after, ESCAPED))?;
                }
                if let Some(next) = gap.next {
                    write!(f, " next={next}")?;
                }
                if let Some(lost) = gap.lost {
                    write!(f, " lost={lost}")?;
                }
                Ok(())
            }
            Self::Path(path) => {
                f.write_str("!path")?;
                write_path(f, path)
            }
        }
    }
}

fn write_list(f: &mut fmt::Formatter<'_>, name: &str, items: &[impl fmt::Display]) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        match index {
            0 => write!(f, " {name}={item}")?,
            _ => write!(f, ",{item}")?,
        }
    }
    Ok(())
}

/// The path, and how far each of it is, where that is not one link after the other.
fn write_path(f: &mut fmt::Formatter<'_>, path: &[Instance]) -> fmt::Result {
    write_list(f, "path", path)?;
    let far: Vec<_> = path.iter().map(|instance| instance.distance).collect();
    let mut numbered = far.iter().enumerate();
    match numbered.all(|(index, distance)| usize::from(*distance) == index) {
        true => Ok(()),
        false => write_list(f, "far", &far),
    }
}

/// Reads one message. The payload of an event is not copied.
pub fn decode(message: Payload) -> Result<Message, Wrong> {
    let line_end = memchr::memchr(b'\n', &message.bytes);
    let line = &message.bytes[..line_end.unwrap_or(message.bytes.len())];
    let line = std::str::from_utf8(line).map_err(|_| Wrong("its first line is no text"))?;
    if let Some(control) = line.strip_prefix('!') {
        return decode_control(control);
    }
    let end = line_end.ok_or(Wrong("there is no header line"))?;
    let payload = Payload {
        kind: message.kind,
        bytes: message.bytes.slice(end + 1..),
    };
    decode_header(line, payload).map(Message::Event)
}

/// The id of the event that a message is, if it is one: all that there is to read of a copy.
pub fn id_of(message: &Payload) -> Option<EventId> {
    let line_end = memchr::memchr2(b' ', b'\n', &message.bytes)?;
    std::str::from_utf8(&message.bytes[..line_end])
        .ok()?
        .parse()
        .ok()
}

fn decode_header(line: &str, payload: Payload) -> Result<Event, Wrong> {
    let mut fields = line.split(' ');
    let id = fields.next().and_then(|id| id.parse().ok());
    let mut event = Event {
        id: id.ok_or(Wrong("it does not begin with an id"))?,
        time: 0,
        event_type: None,
        key: None,
        payload,
    };
    for (name, value) in fields.filter_map(|field| field.split_once('=')) {
        match name {
            "t" => event.time = value.parse().map_err(|_| Wrong("t= is no number"))?,
            "type" => event.event_type = Some(decode_value(value)?.into()),
            "key" => event.key = Some(decode_value(value)?.into()),
            _ => {}
        }
    }
    Ok(event)
}

fn decode_control(line: &str) -> Result<Message, Wrong> {
    let (name, fields) = line.split_once(' ').unwrap_or((line, ""));
    let fields = || fields.split(' ').filter_map(|field| field.split_once('='));
    let field = |wanted| {
        fields()
            .find(|(name, _)| *name == wanted)
            .map(|(_, value)| value)
    };
    let control = match name {
        "hello" => Control::Hello(Hello {
            id: optional(field("id"), "id= is no id")?,
            have: list(field("have"), "have= is no list of event ids")?,
            from: match field("from") {
                None | Some("all") => Begin::All,
                Some("live") => Begin::Live,
                Some("first") => Begin::First,
                Some(text) => begin(text)?,
            },
            state: match field("state") {
                Some("yes") => StateWish::Yes,
                Some("missed") => StateWish::Missed,
                _ => StateWish::No,
            },
            scope: match field("scope") {
                Some("local") => Scope::Local,
                _ => Scope::All,
            },
        }),
        "snapshot" => Control::Snapshot(match field("state") {
            Some("begin") => Snapshot::Begin {
                count: optional(field("count"), "count= is no number")?.unwrap_or(0),
            },
            Some("end") => Snapshot::End {
                after: optional(field("after"), "after= is no event id")?,
            },
            _ => return Err(Wrong("a snapshot neither begins nor ends")),
        }),
        "welcome" => Control::Welcome(Welcome {
            path: path(field("path"), field("far"))?,
            backlog: optional(field("backlog"), "backlog= is no number")?.unwrap_or(0),
            resumed: field("resumed").map(Into::into),
        }),
        "gap" => Control::Gap(Gap {
            after: field("after")
                .map(decode_value)
                .transpose()?
                .map(|after| after.into()),
            next: optional(field("next"), "next= is no event id")?,
            lost: optional(field("lost"), "lost= is no number")?,
        }),
        "path" => Control::Path(path(field("path"), field("far"))?),
        _ => return Ok(Message::Unknown),
    };
    Ok(Message::Control(control))
}

fn begin(text: &str) -> Result<Begin, Wrong> {
    let count = text.parse().map(Begin::Last);
    let id = |_| text.parse().map(Begin::After);
    let wrong = |_| Wrong("from= is neither live, all, first, a number nor an event id");
    count.or_else(id).map_err(wrong)
}

fn optional<T: FromStr>(value: Option<&str>, wrong: &'static str) -> Result<Option<T>, Wrong> {
    let parsed = value.map(|value| value.parse().map_err(|_| Wrong(wrong)));
    parsed.transpose()
}

fn list<T: FromStr>(value: Option<&str>, wrong: &'static str) -> Result<Vec<T>, Wrong> {
    let items = value.into_iter().flat_map(|value| value.split(','));
    items
        .map(|item| item.parse().map_err(|_| Wrong(wrong)))
        .collect()
}

/// A path. Who does not say how far its instances are has them one behind the other.
fn path(path: Option<&str>, far: Option<&str>) -> Result<Vec<Instance>, Wrong> {
    let mut path: Vec<Instance> = list(path, "path= is no list of instances")?;
    let far: Vec<u8> = list(far, "far= is no list of small numbers")?;
    for (index, instance) in path.iter_mut().enumerate() {
        let in_a_row = u8::try_from(index).unwrap_or(u8::MAX);
        instance.distance = far.get(index).copied().unwrap_or(in_a_row);
    }
    Ok(path)
}

fn decode_value(value: &str) -> Result<Cow<'_, str>, Wrong> {
    let decoded = percent_decode_str(value).decode_utf8();
    decoded.map_err(|_| Wrong("a value is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Without the frame header, which another test reads.
    fn message(event: &Event) -> Payload {
        let mut head = vec![];
        encode_header(event, &mut head);
        let line = memchr::memrchr(b'\n', &head).expect("the line ends");
        let begin = memchr::memmem::find(&head, event.id.to_string().as_bytes());
        let begin = begin.expect("the line begins with the id");
        Payload {
            kind: event.payload.kind,
            bytes: [&head[begin..=line], &event.payload.bytes].concat().into(),
        }
    }

    fn event(event_type: Option<String>, key: Option<String>, payload: Payload) -> Event {
        Event {
            id: EventId {
                origin: Origin(u64::MAX),
                seq: 42,
            },
            time: 1_763_711_000_123_456,
            event_type: event_type.map(Into::into),
            key: key.map(Into::into),
            payload,
        }
    }

    proptest! {
        #[test]
        fn events_come_out_unchanged(
            event_type in proptest::option::of(any::<String>()),
            key in proptest::option::of(any::<String>()),
            text in any::<String>(),
            binary in any::<Option<Vec<u8>>>(),
        ) {
            let payload = binary.map_or(Payload::text(text), Payload::binary);
            let event = event(event_type, key, payload);
            prop_assert_eq!(decode(message(&event)), Ok(Message::Event(event)));
        }

        #[test]
        fn nothing_makes_it_panic(text in "!?[a-z]{0,8} ?([a-z]{0,5}=?[0-9A-Z,%@-]{0,20} ?){0,4}\n?.{0,5}") {
            let _ = decode(Payload::text(text));
        }
    }

    #[test]
    fn the_frame_is_as_long_as_its_header_says() {
        let event = event(None, None, Payload::text("x".repeat(200)));
        let mut wire = vec![];
        encode_header(&event, &mut wire);
        wire.extend_from_slice(&event.payload.bytes);
        assert_eq!(websocket::boundary_at_or_after(&wire, 1), (wire.len(), 1));
    }

    #[test]
    fn control_lines_come_out_unchanged() {
        let id = |seq| EventId {
            origin: Origin(5),
            seq,
        };
        let instance = |address: &str, distance| Instance {
            id: Origin(9),
            address: address.into(),
            distance,
        };
        for control in [
            Control::Hello(Hello::default()),
            Control::Hello(Hello {
                id: Some(Origin(1)),
                have: vec![id(3), id(4)],
                from: Begin::Last(7),
                ..Hello::default()
            }),
            Control::Hello(Hello {
                from: Begin::Live,
                ..Hello::default()
            }),
            Control::Hello(Hello {
                from: Begin::First,
                ..Hello::default()
            }),
            Control::Hello(Hello {
                from: Begin::After(id(9)),
                ..Hello::default()
            }),
            Control::Welcome(Welcome {
                path: vec![instance("localhost:8080", 0), instance("a b,c@d%é:1", 1)],
                backlog: 12,
                resumed: Some("partial".into()),
            }),
            Control::Welcome(Welcome::default()),
            Control::Gap(Gap {
                after: Some("what a client said, perhaps".into()),
                next: Some(id(8)),
                lost: Some(0),
            }),
            Control::Gap(Gap {
                after: None,
                next: None,
                lost: None,
            }),
            Control::Path(vec![instance("[::1]:80", 0)]),
            Control::Path([0, 1, 1, 63].map(|far| instance("h:1", far)).into()),
            Control::Hello(Hello {
                state: StateWish::Yes,
                have: vec![id(3)],
                ..Hello::default()
            }),
            Control::Hello(Hello {
                state: StateWish::Missed,
                ..Hello::default()
            }),
            Control::Snapshot(Snapshot::Begin { count: 12 }),
            Control::Snapshot(Snapshot::End { after: None }),
            Control::Snapshot(Snapshot::End { after: Some(id(9)) }),
        ] {
            let line = control.to_string();
            assert_eq!(
                decode(Payload::text(line.clone())),
                Ok(Message::Control(control)),
                "{line}"
            );
        }
    }

    #[test]
    fn what_is_not_known_is_passed_over_and_what_is_wrong_is_named() {
        assert_eq!(decode(Payload::text("!later x=1")), Ok(Message::Unknown));
        let later = "!hello new=1 from=all word";
        assert!(decode(Payload::text(later)).is_ok());
        let event = "0000000000001-7 new=1 t=5\npayload";
        assert!(decode(Payload::text(event)).is_ok());
        for wrong in [
            "",
            "no header line",
            "no id\npayload",
            "0000000000001-0 t=1\n",
            "0000000000001-7 t=x\n",
            "0000000000001-7 type=%FF\n",
            "!hello have=1",
            "!hello from=some",
            "!welcome backlog=-1",
            "!gap next=x",
            "!path path=0000000000001@h far=256",
            "!snapshot",
            "!snapshot state=over",
            "!snapshot state=begin count=x",
            "!snapshot state=end after=x",
        ] {
            assert!(decode(Payload::text(wrong)).is_err(), "{wrong:?}");
        }
    }
}
