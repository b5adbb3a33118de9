//! The body of an answer that has no end: SSE and NDJSON, read strictly.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::net::TcpStream;
use wsevent::wire::compress::{Coding, Expander};

use super::{Client, Head, request};
use crate::harness::within_guard;

/// A client that has asked for a stream, and reads its body.
pub struct Stream {
    pub client: Client,
    pub head: Head,
    /// What has been read of the body and not been taken.
    body: Vec<u8>,
    /// Takes out the compression that the head tells of.
    expander: Option<Expander>,
    /// How many bytes of the body have come, as they were sent.
    pub received: usize,
    is_over: bool,
    /// The end may be anywhere: the server gives up on who has not read for some seconds while it ends.
    pub may_be_cut: bool,
}

/// A block of SSE that has data (WHATWG HTML, section 9.2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SseEvent {
    pub id: Option<String>,
    pub event: Option<String>,
    pub data: String,
}

impl SseEvent {
    /// The gap that it tells of: after, next, lost.
    pub fn gap(&self) -> Value {
        assert_eq!(self.event.as_deref(), Some("wsevent.gap"), "{self:?}");
        assert_eq!(self.id, None, "a gap has no id");
        serde_json::from_str(&self.data).expect("a gap is JSON")
    }

    /// The id of an event.
    pub fn id(&self) -> &str {
        self.id
            .as_deref()
            .unwrap_or_else(|| panic!("no event: {self:?}"))
    }
}

impl Stream {
    /// Asks on a new connection.
    pub async fn open(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Self {
        Self::on(Client::connect(address).await, target, headers).await
    }

    /// Asks on a connection that has been used before, so that hyper writes the answer.
    pub async fn open_second(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Self {
        let client = Client::connect(address).await;
        Self::on(client.used().await, target, headers).await
    }

    /// Asks a server that may be about to go, or not be there: none if there is no answer.
    pub async fn try_open(
        address: SocketAddr,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Option<Self> {
        let connecting = TcpStream::connect(address);
        let mut client = Client::new(within_guard("a connection", connecting).await.ok()?);
        let headers = [&[("Host", "localhost")], headers].concat();
        let request = request(&format!("GET {target} HTTP/1.1"), &headers);
        client.try_send(request).await.ok()?;
        let head = client.try_head().await?;
        Some(Self::answered(client, head))
    }

    /// Asks on this connection.
    pub async fn on(mut client: Client, target: &str, headers: &[(&str, &str)]) -> Self {
        let headers = [&[("Host", "localhost")], headers].concat();
        client
            .send(request(&format!("GET {target} HTTP/1.1"), &headers))
            .await;
        Self::of(client).await
    }

    /// Reads the answer to what has been asked.
    pub async fn of(mut client: Client) -> Self {
        let head = client.head().await;
        Self::answered(client, head)
    }

    /// Reads the body behind a head.
    pub fn answered(client: Client, head: Head) -> Self {
        assert_eq!(head.status, 200, "{head:?}");
        let coding = match head.header("content-encoding") {
            "" => None,
            "gzip" => Some(Coding::Gzip),
            "zstd" => Some(Coding::Zstd),
            other => panic!("encoded with {other}"),
        };
        Self {
            expander: coding.and_then(Expander::new),
            received: 0,
            client,
            head,
            body: vec![],
            is_over: false,
            may_be_cut: false,
        }
    }

    /// Reads more of the body; false at its end.
    async fn read(&mut self) -> bool {
        if self.is_over {
            return false;
        }
        if self.head.header("transfer-encoding").is_empty() {
            if self.client.buffer.len() == self.client.taken && !self.client.fill().await {
                self.is_over = true;
                return false;
            }
            let read = self.client.buffer.split_off(self.client.taken);
            self.take(&read);
            return true;
        }
        assert_eq!(self.head.header("transfer-encoding"), "chunked");
        let Some(size) = self.client.until(b"\r\n").await else {
            panic!("the connection ended before the body");
        };
        let size = std::str::from_utf8(&size).expect("a size is ASCII");
        let size = usize::from_str_radix(size, 16).expect("a size is hexadecimal");
        let mut chunk = self.client.bytes(size + 2).await;
        assert!(chunk.ends_with(b"\r\n"), "a chunk ends with its line");
        chunk.truncate(size);
        self.take(&chunk);
        self.is_over = size == 0;
        !self.is_over
    }

    fn take(&mut self, mut read: &[u8]) {
        self.received += read.len();
        let Some(expander) = &mut self.expander else {
            self.body.extend(read);
            return;
        };
        let mut piece = [0; 16 << 10];
        loop {
            let len = expander
                .next(&mut read, &mut piece)
                .expect("it is what the head says");
            self.body.extend(&piece[..len]);
            if len < piece.len() {
                return;
            }
        }
    }

    /// What comes up to this delimiter, with it; none at the end of the body, which must not be in the middle of it.
    pub async fn until(&mut self, delimiter: &str) -> Option<String> {
        let text = self.until_or_cut(delimiter).await;
        if text.is_none() && !self.may_be_cut {
            let rest = String::from_utf8_lossy(&self.body);
            assert_eq!(rest, "", "the body ended in the middle");
        }
        text
    }

    async fn until_or_cut(&mut self, delimiter: &str) -> Option<String> {
        let delimiter = delimiter.as_bytes();
        let mut from = 0;
        loop {
            let mut windows = self.body[from..].windows(delimiter.len());
            if let Some(at) = windows.position(|window| window == delimiter) {
                let rest = self.body.split_off(from + at + delimiter.len());
                let text = std::mem::replace(&mut self.body, rest);
                return Some(String::from_utf8(text).expect("it is UTF-8"));
            }
            from = self.body.len().saturating_sub(delimiter.len());
            if !within_guard("more of a body", self.read()).await {
                return None;
            }
        }
    }

    /// The next block of SSE, as it stands on the wire.
    pub async fn block(&mut self) -> Option<String> {
        self.until("\n\n").await
    }

    /// The first block of SSE, less the time after which to come back, which is another one for each reader.
    pub async fn opening(&mut self) -> Option<String> {
        let block = self.block().await?;
        let line = block
            .strip_prefix("retry: ")
            .expect("it begins with a time");
        let (millis, rest) = line.split_once('\n').expect("the end of a line");
        let millis: u64 = millis.parse().expect("a number");
        assert!((2_000..=4_000).contains(&millis), "{block}");
        Some(rest.to_owned())
    }

    /// The next event of SSE, with whatever else there is passed over.
    pub async fn try_event(&mut self) -> Option<SseEvent> {
        while let Some(block) = self.block().await {
            let mut event = SseEvent::default();
            let mut data: Vec<&str> = vec![];
            for line in block.split_terminator('\n').filter(|line| !line.is_empty()) {
                match line.split_once(": ") {
                    Some(("id", id)) => event.id = Some(id.to_owned()),
                    Some(("event", name)) => event.event = Some(name.to_owned()),
                    Some(("data", text)) => data.push(text),
                    Some(("retry", _)) => {}
                    _ => assert_eq!(line, ":", "in {block:?}"),
                }
            }
            if !data.is_empty() {
                event.data = data.join("\n");
                return Some(event);
            }
        }
        None
    }

    /// The next event of SSE, which must come.
    pub async fn event(&mut self) -> SseEvent {
        self.try_event().await.expect("an event before the end")
    }

    /// The next object of NDJSON.
    pub async fn try_object(&mut self) -> Option<Value> {
        let line = self.until("\n").await?;
        Some(serde_json::from_str(&line).expect("a line is JSON"))
    }

    /// The next object of NDJSON, which must come.
    pub async fn object(&mut self) -> Value {
        self.try_object().await.expect("a line before the end")
    }

    /// Sees the end of the body, with nothing more before it but heartbeats.
    pub async fn ended(&mut self) {
        while let Some(line) = self.until("\n").await {
            assert!([":\n", "\n"].contains(&&*line), "{line}");
        }
    }

    /// Reads to the end, which may be anywhere.
    pub async fn drain(&mut self) {
        while within_guard("the end of a body", self.read()).await {
            self.body.clear();
        }
    }
}
