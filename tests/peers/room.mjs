// A room made of Node's ws and http, for tests/it/bench.rs: what one client sends over a WebSocket, all others get in an envelope of
// JSON, over WebSockets and as server-sent events. Clients that come when there are N already are closed after three messages.
//
// Says its port.

import { createServer } from "node:http";
import { createRequire } from "node:module";

// An import would not look into the folder that the tests name.
const { WebSocketServer } = createRequire(`${process.env.WSEVENT_TEST_NODE_MODULES}/`)("ws");

const readers = new Set();
const patience = Number(process.argv[2] ?? Infinity);

const server = createServer((request, response) => {
  response.writeHead(200, { "Content-Type": "text/event-stream" });
  response.write(": welcome\n\n");
  const send = (text) => response.write(`event: message\ndata: ${text}\n\n`);
  readers.add(send);
  request.on("close", () => readers.delete(send));
});
new WebSocketServer({ server }).on("connection", (socket) => {
  let count = 0;
  const goes = readers.size >= patience;
  const send = (text) => {
    socket.send(text);
    if (++count === 3 && goes) {
      socket.close(4000, "enough");
      readers.delete(send);
    }
  };
  readers.add(send);
  socket.on("message", (data) => {
    const text = JSON.stringify({ from: "somebody", said: data.toString() });
    readers.delete(send);
    for (const other of readers) other(text);
  });
  socket.on("close", () => readers.delete(send));
});
server.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: server.address().port })));
