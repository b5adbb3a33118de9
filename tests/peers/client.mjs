// A WebSocket client made of Node's ws, for tests/it/peers.rs.
//
// Connects to the URL it is given, with the headers behind it (`Name: value`), pings, and says what it gets until the
// connection ends. A line on standard input is sent as a message.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

// An import would not look into the folder that the tests name.
const { WebSocket } = createRequire(`${process.env.WSEVENT_TEST_NODE_MODULES}/`)("ws");

const say = (what) => console.log(JSON.stringify(what));

const PROTOCOL = "Sec-WebSocket-Protocol";

const [url, ...lines] = process.argv.slice(2);
const { [PROTOCOL]: subprotocol, ...headers } = Object.fromEntries(lines.map((line) => line.split(": ", 2)));
// It sends that one by itself, and insists on what it has offered.
const socket = new WebSocket(url, subprotocol ? [subprotocol] : [], { headers });
socket.on("unexpected-response", (_, response) => {
  say({ refused: response.statusCode });
  process.exit(0);
});
socket.on("open", () => {
  say({ extensions: socket.extensions || null, subprotocol: socket.protocol || null });
  socket.ping("are you there?");
});
socket.on("pong", (data) => {
  say({ pong: data.toString() === "are you there?" });
  createInterface(process.stdin).on("line", (line) => socket.send(line));
});
socket.on("message", (data, isBinary) => {
  say({ kind: isBinary ? "binary" : "text", base64: data.toString("base64") });
});
socket.on("close", (code) => {
  say({ closed: code });
  process.exit(0);
});
