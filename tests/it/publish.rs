//! Publishing: by POST, by messages on a WebSocket, and by `wsevent publish`.

mod client;
mod connections;
mod requests;
mod websocket;

use crate::harness::client::{Client, request};
use crate::harness::wsevent::Hop;

/// A hop without events that lets clients publish.
async fn hop(args: &[&str]) -> Hop {
    Hop::quiet(&[&["--accept-publish"], args].concat()).await
}

/// A POST with a length, as it stands on the wire.
pub fn post(path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let length = body.len().to_string();
    let common = [("Host", "localhost"), ("Content-Length", &length)];
    let head = request(
        &format!("POST {path} HTTP/1.1"),
        &[&common, headers].concat(),
    );
    [head.as_bytes(), body].concat()
}

/// One request on a connection that stays: status and body of the answer.
pub async fn ask(client: &mut Client, request: impl AsRef<[u8]>) -> (u16, String) {
    client.send(request).await;
    let head = client.head().await;
    (head.status, client.body(&head).await)
}

/// The ids in an answer.
fn ids(body: &str) -> Vec<String> {
    let answer: serde_json::Value = serde_json::from_str(body).expect("it is JSON");
    let ids = answer["ids"].as_array().expect("it has ids");
    let text = |id: &serde_json::Value| id.as_str().expect("an id is text").to_owned();
    ids.iter().map(text).collect()
}

/// A reader of NDJSON.
async fn reader(hop: &Hop) -> Client {
    let mut client = Client::connect(hop.address).await;
    let headers = [("Host", "localhost"), ("Accept", "application/x-ndjson")];
    client
        .send(request("GET /events?history=all HTTP/1.1", &headers))
        .await;
    assert_eq!(client.head().await.status, 200);
    client
}
