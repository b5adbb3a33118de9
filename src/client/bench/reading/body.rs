//! The answer to a request for an event stream over HTTP/1.1 (RFC 9112): its head, and what its body is cut into.

use hyper::Response;
use hyper::header::{self, HeaderName};

use super::Wrong;

/// The most headers that an answer may have.
const MAX_HEADERS: usize = 64;
/// The longest line that says how long a chunk is.
const MAX_CHUNK_LINE: usize = 256;

/// The head of an answer.
#[derive(Debug)]
pub struct Head {
    /// Its length, in bytes.
    pub length: usize,
    /// Status and headers.
    pub response: Response<()>,
}

impl Head {
    /// Reads the head that begins here; none while it is not all there.
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, Wrong> {
        const WRONG: Wrong = Wrong("its answer is none of HTTP/1.1");
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut head = httparse::Response::new(&mut headers);
        let length = match head.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(WRONG),
        };
        let mut response = Response::builder().status(head.code.unwrap_or_default());
        for header in head.headers.iter() {
            response = response.header(header.name, header.value);
        }
        let response = response.body(()).map_err(|_| WRONG)?;
        Ok(Some(Self { length, response }))
    }

    /// A header in small letters; empty if it is not there.
    fn header(&self, name: HeaderName) -> String {
        let value = self.response.headers().get(name);
        let value = value.map_or(&[][..], |value| value.as_bytes());
        String::from_utf8_lossy(value).trim().to_ascii_lowercase()
    }

    /// The type of what the body is, without parameters.
    pub fn content_type(&self) -> String {
        let content_type = self.header(header::CONTENT_TYPE);
        let essence = content_type.split(';').next().unwrap_or_default();
        essence.trim().to_owned()
    }

    /// Whether the body comes in chunks. An error if it comes in any way that was not asked for.
    pub fn is_chunked(&self) -> Result<bool, Wrong> {
        if !matches!(&*self.header(header::CONTENT_ENCODING), "" | "identity") {
            return Err(Wrong(
                "its answer has a content coding that was not asked for",
            ));
        }
        match &*self.header(header::TRANSFER_ENCODING) {
            "" | "identity" => Ok(false),
            "chunked" => Ok(true),
            _ => Err(Wrong(
                "its answer has a transfer coding that was not asked for",
            )),
        }
    }
}

/// Where a connection stands in its chunks (RFC 9112, section 7.1).
#[derive(Debug, Default)]
pub struct Chunks {
    /// So much of the current chunk is to come.
    rest: u64,
    /// The line before a chunk, and the end of the one before that, as far as they have come.
    line: Vec<u8>,
    /// What has come is not the first chunk.
    is_behind_chunk: bool,
    /// The last chunk has come.
    pub is_over: bool,
}

impl Chunks {
    /// The next piece of the body in `bytes`, of which it takes that away; none if there is no more in it.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Wrong> {
        while self.rest == 0 {
            let Some((&byte, rest)) = bytes.split_first() else {
                return Ok(None);
            };
            if self.is_over {
                return Ok(None);
            }
            *bytes = rest;
            self.line.push(byte);
            if byte == b'\n' {
                self.end_of_line()?;
            } else if self.line.len() > MAX_CHUNK_LINE {
                return Err(Wrong("a chunk whose length is no length"));
            }
        }
        let length = usize::try_from(self.rest).map_or(bytes.len(), |rest| rest.min(bytes.len()));
        if length == 0 {
            return Ok(None);
        }
        let (piece, rest) = bytes.split_at(length);
        *bytes = rest;
        self.rest -= length as u64;
        Ok(Some(piece))
    }

    fn end_of_line(&mut self) -> Result<(), Wrong> {
        let is_end = self.is_behind_chunk && matches!(&self.line[..], b"\r\n" | b"\n");
        self.is_behind_chunk = !is_end;
        if !is_end {
            match httparse::parse_chunk_size(&self.line) {
                Ok(httparse::Status::Complete((_, 0))) => self.is_over = true,
                Ok(httparse::Status::Complete((_, length))) => self.rest = length,
                _ => return Err(Wrong("a chunk whose length is no length")),
            }
        }
        self.line.clear();
        Ok(())
    }
}
