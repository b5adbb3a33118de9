// WebSockets over HTTP/2 (RFC 8441) made of Node's http2 and ws, for tests/it/proxying/http2_peers.rs and
// tests/it/tls_server/peers.rs.
//
// Connects to the origin it is given, and trusts the certificate in the file that is named behind it, if one is. Each line on
// standard input is a command: "open PATH", "send NUMBER TEXT", "close NUMBER", "end". It says what it gets.

import { readFileSync } from "node:fs";
import { connect } from "node:http2";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

// An import would not look into the folder that the tests name.
const { WebSocket } = createRequire(`${process.env.WSEVENT_TEST_NODE_MODULES}/`)("ws");

const say = (what) => console.log(JSON.stringify(what));

const [origin, certificate] = process.argv.slice(2);
const session = connect(origin, certificate && { ca: readFileSync(certificate) });
const sockets = [];

// ws makes handshakes of HTTP/1.1 only, but takes any stream on which one has been made.
const webSocketOn = (stream) => {
  const socket = new WebSocket(null, undefined, { autoPong: true, closeTimeout: 30_000 });
  socket._isServer = false;
  socket.setSocket(stream, Buffer.alloc(0), { maxPayload: 0 });
  return socket;
};

const open = (path) => {
  const number = sockets.push(null) - 1;
  const stream = session.request(
    {
      ":method": "CONNECT",
      ":protocol": "websocket",
      ":path": path,
      "sec-websocket-version": "13",
      "sec-websocket-protocol": "chat",
    },
    { endStream: false },
  );
  stream.on("error", (error) => say({ number, error: error.message }));
  stream.once("response", (headers) => {
    const status = headers[":status"];
    if (status !== 200) {
      let body = "";
      stream.setEncoding("utf8");
      stream.on("data", (text) => (body += text));
      stream.on("end", () => say({ number, status, of: headers["x-of"] ?? null, body }));
      stream.end();
      return;
    }
    const socket = webSocketOn(stream);
    sockets[number] = socket;
    socket.on("message", (data, isBinary) => {
      say({ number, kind: isBinary ? "binary" : "text", length: data.length, start: data.toString("utf8", 0, 20) });
    });
    socket.on("close", (code) => say({ number, closed: code }));
    say({ number, status, protocol: headers["sec-websocket-protocol"] ?? null });
  });
};

session.on("goaway", (code) => say({ goaway: code }));
session.on("close", () => {
  say({ session: "closed" });
  process.exit(0);
});
session.once("remoteSettings", (settings) => {
  say({ protocol: session.alpnProtocol, enableConnectProtocol: settings.enableConnectProtocol });
  createInterface(process.stdin).on("line", (line) => {
    const [command, what, ...rest] = line.split(" ");
    switch (command) {
      case "open":
        return open(what);
      case "send":
        return sockets[what].send(rest.join(" "));
      case "close":
        return sockets[what].close(4001, "enough");
      case "end":
        return session.close();
    }
  });
});
