//! A stream, as the server knows it.

use anyhow::{Result, anyhow};
use async_nats::jetstream;
use async_nats::jetstream::context::{
    ContextBuilder, GetStreamErrorKind, RequestError, RequestErrorKind,
};
use async_nats::jetstream::stream::{ConsumerErrorKind, Info};
use async_nats::jetstream::{Error as ApiError, ErrorCode};

use super::super::super::Bus;
use super::super::super::address::Kind;
use super::super::connection::{Connection, PATIENCE, silent};
use crate::event::Origin;
use crate::source::refusal::Unfit;

/// The name of the stream, and the subject that the user names, if any.
pub fn names(bus: &Bus) -> (&str, Option<&str>) {
    match &bus.address.kind {
        Kind::JetStream { stream, subject } => (stream, subject.as_deref()),
        _ => unreachable!("a stream is read and written"),
    }
}

/// A stream at the end of a connection.
pub struct Store {
    /// What JetStream is asked by.
    pub context: jetstream::Context,
    /// What it says of the stream, now or when it was last asked.
    pub info: Info,
}

impl Store {
    /// Finds the stream of this name.
    pub async fn find(connection: &Connection, name: &str) -> Result<Self> {
        let context = ContextBuilder::new()
            .timeout(PATIENCE)
            .ack_timeout(PATIENCE)
            // How many are on the way is decided by who sends.
            .max_ack_inflight(1 << 20)
            .build(connection.client.clone());
        let info = info(connection, &context, name).await?;
        Ok(Self { context, info })
    }

    /// Asks anew.
    pub async fn update(&mut self, connection: &Connection) -> Result<()> {
        self.info = info(connection, &self.context, &self.info.config.name).await?;
        Ok(())
    }

    /// What the ids have in common that are from here. Of a stream that is made anew under the same name it is another one.
    pub fn origin(&self) -> Origin {
        let created = self.info.created.unix_timestamp_nanos();
        let name = format!("{}\0{created}", self.info.config.name);
        Origin::store(fnv1a(name.as_bytes()))
    }

    /// The number of the first message that is there; of the next one, if none is.
    pub fn first(&self) -> u64 {
        self.info.state.first_sequence.max(1)
    }

    /// The number of the last message that there was.
    pub fn last(&self) -> u64 {
        self.info.state.last_sequence
    }
}

async fn info(connection: &Connection, context: &jetstream::Context, name: &str) -> Result<Info> {
    let stream = tokio::select! {
        biased;
        error = connection.over() => return Err(error),
        stream = context.get_stream(name) => stream,
    };
    stream
        .map(|stream| stream.cached_info().clone())
        .map_err(|error| match error.kind() {
            GetStreamErrorKind::JetStream(error) => said_no(name, &error),
            _ => {
                let source = std::error::Error::source(&error);
                let source = source.and_then(|source| source.downcast_ref::<RequestError>());
                match source.map(RequestError::kind) {
                    Some(RequestErrorKind::NoResponders) => no_jetstream(),
                    Some(RequestErrorKind::TimedOut) => silent(),
                    _ => anyhow!("{error}"),
                }
            }
        })
}

/// What a consumer could not be made for.
pub fn no_consumer(name: &str, error: &jetstream::stream::ConsumerError) -> anyhow::Error {
    match error.kind() {
        ConsumerErrorKind::JetStream(error) => said_no(name, &error),
        ConsumerErrorKind::TimedOut => silent(),
        _ => anyhow!("{error}"),
    }
}

fn no_jetstream() -> anyhow::Error {
    Unfit("JetStream is not enabled on this server: it has to be started with -js".to_owned())
        .into()
}

/// What JetStream says of an error. What is wrong with a name or a right stays so.
pub fn said_no(stream: &str, error: &ApiError) -> anyhow::Error {
    match error.error_code() {
        ErrorCode::STREAM_NOT_FOUND => Unfit(format!(
            "there is no stream '{stream}': make it, such as by 'nats stream add {stream}'"
        ))
        .into(),
        ErrorCode::JETSTREAM_NOT_ENABLED => no_jetstream(),
        ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
            Unfit("JetStream is not enabled for the account of this user".to_owned()).into()
        }
        ErrorCode::CONSUMER_FILTER_NOT_SUBSET => Unfit(format!(
            "subject= is no subject of the stream '{stream}': see 'nats stream info {stream}'"
        ))
        .into(),
        _ => anyhow!("the server says: {error}"),
    }
}

/// FNV-1a with 64 bits (draft-eastlake-fnv): short, and the same everywhere and for ever, as what is made of it must be.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Whether a subject without wildcards is among those that `pattern` stands for.
pub fn has(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in pattern.split('.') {
        match (wanted, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (wanted, Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

/// Whether it may be many subjects.
pub fn is_wild(subject: &str) -> bool {
    subject.split('.').any(|token| matches!(token, "*" | ">"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of the draft, appendix C.
    #[test]
    fn the_hash_is_fnv_1a() {
        for (text, hash) in [
            ("", 0xcbf2_9ce4_8422_2325),
            ("a", 0xaf63_dc4c_8601_ec8c),
            ("foobar", 0x8594_4171_f739_67e8),
        ] {
            assert_eq!(fnv1a(text.as_bytes()), hash, "{text:?}");
        }
    }

    #[test]
    fn wildcards_stand_for_tokens() {
        for (pattern, subject, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a", false),
            ("a", "a.b", false),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*", "a.b.c", false),
            ("*.b", "a.b", true),
            (">", "a.b", true),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
        ] {
            assert_eq!(has(pattern, subject), expected, "{pattern} {subject}");
        }
    }
}
