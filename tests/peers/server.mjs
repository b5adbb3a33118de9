// A WebSocket server made of Node's ws, for tests/it/peers.rs.
//
// Says its port, then for its connection what it was asked and told; pings, and for a line on standard input sends its
// events and closes.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

// An import would not look into the folder that the tests name.
const { WebSocketServer } = createRequire(`${process.env.WSEVENT_TEST_NODE_MODULES}/`)("ws");

const MIB = 1 << 20;

const EVENTS = [
  "plain",
  "é ✓ 𝄞",
  Buffer.from(Array.from({ length: 256 }, (_, at) => at)),
  "",
  Buffer.alloc(0),
  "x".repeat(MIB),
  Buffer.from(Array.from({ length: MIB }, (_, at) => at % 251)),
  ["frag", "", "mented ✓"],
  [Buffer.alloc(100_000, 0xff), Buffer.alloc(0), Buffer.from("end")],
  "last",
];

const say = (what) => console.log(JSON.stringify(what));

function send(socket, event) {
  if (!Array.isArray(event)) {
    socket.send(event);
    return;
  }
  event.forEach((fragment, at) => socket.send(fragment, { fin: at + 1 === event.length }));
}

const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
server.on("listening", () => say({ port: server.address().port }));
server.on("connection", (socket, request) => {
  say({ path: request.url, header: request.headers["x-peer"] ?? null });
  socket.on("message", (data) => {
    say({ message: data.toString() });
    socket.ping("are you there?");
  });
  socket.on("pong", (data) => {
    say({ pong: data.toString() === "are you there?" });
    createInterface(process.stdin).once("line", () => {
      EVENTS.forEach((event) => send(socket, event));
      socket.close(1000, "that is all");
    });
  });
  socket.on("close", (code) => say({ closed: code }));
});
