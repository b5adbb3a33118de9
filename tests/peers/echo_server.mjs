// A WebSocket server made of Node's ws, for tests/it/proxying/peers.rs.
//
// Says its port, then for each connection what it was asked, and how it was closed. Sends everything back; "close CODE" is
// done at once. Knows the subprotocols it is given, and compresses.

import { createRequire } from "node:module";

// An import would not look into the folder that the tests name.
const { WebSocketServer } = createRequire(`${process.env.WSEVENT_TEST_NODE_MODULES}/`)("ws");

const say = (what) => console.log(JSON.stringify(what));

const known = process.argv.slice(2);
const server = new WebSocketServer({
  host: "127.0.0.1",
  port: 0,
  perMessageDeflate: true,
  handleProtocols: (offered) => known.find((name) => offered.has(name)) ?? false,
});
server.on("listening", () => say({ port: server.address().port }));
server.on("connection", (socket, request) => {
  say({
    path: request.url,
    extensions: request.headers["sec-websocket-extensions"] ?? null,
    client: request.headers["x-forwarded-for"] ?? null,
  });
  socket.on("message", (data, isBinary) => {
    const text = data.toString();
    if (!isBinary && text.startsWith("close ")) {
      socket.close(Number(text.slice("close ".length)), "as you wish");
    } else {
      socket.send(data, { binary: isBinary });
    }
  });
  socket.on("close", (code) => say({ closed: code }));
});
