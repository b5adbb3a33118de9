// A WebSocket client made of Node's ws, for tests/it/proxying/peers.rs.
//
// Connects to the URL it is given, offers the subprotocols that follow, and says what was agreed on, whether a ping and
// messages of all sorts have come back as they were, and how the server has closed; then, told so by a line, on another
// connection, how it has closed itself.

import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createRequire } from "node:module";

// An import would not look into the folder that the tests name.
const { WebSocket } = createRequire(`${process.env.WSEVENT_TEST_NODE_MODULES}/`)("ws");

const MIB = 1 << 20;

const MESSAGES = [
  "plain",
  "é ✓ 𝄞",
  Buffer.from(Array.from({ length: 256 }, (_, at) => at)),
  "",
  Buffer.alloc(0),
  "x".repeat(MIB),
  randomBytes(MIB),
  ...[125, 126, 127, 65_535, 65_536, 65_537].map((size) => Buffer.alloc(size, "y")),
];

const say = (what) => console.log(JSON.stringify(what));

async function opened() {
  const [, , url, ...protocols] = process.argv;
  const socket = new WebSocket(url, protocols);
  await once(socket, "open");
  return socket;
}

async function comesBack(socket, message) {
  const [data, isBinary] = await once(socket, "message");
  return isBinary === (typeof message !== "string") && Buffer.from(message).equals(data);
}

let socket = await opened();
say({ extensions: socket.extensions || null, subprotocol: socket.protocol || null });
socket.ping("are you there?");
say({ pong: (await once(socket, "pong")).toString() === "are you there?" });
let same = 0;
for (const message of MESSAGES) {
  socket.send(message);
  same += await comesBack(socket, message);
}
// In fragments.
socket.send("frag", { fin: false });
socket.send("", { fin: false });
socket.send("mented ✓", { fin: true });
same += await comesBack(socket, "fragmented ✓");
// Many on their way at once.
let next = 0;
const all = new Promise((resolve) => {
  socket.on("message", (data) => {
    same += data.toString() === `number ${next}`;
    next += 1;
    if (next === 1000) resolve();
  });
});
for (let number = 0; number < 1000; number += 1) socket.send(`number ${number}`);
await all;
say({ same, of: MESSAGES.length + 1 + 1000 });
socket.send("close 4321");
const [closed, reason] = await once(socket, "close");
say({ closed, reason: reason.toString() });
// By now the server may not have said that the first is closed.
await once(process.stdin, "data");
process.stdin.destroy();
socket = await opened();
socket.close(4322, "enough");
say({ closed: (await once(socket, "close"))[0] });
