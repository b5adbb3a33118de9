// A server made of Node's `ws`, as its README has it: what comes from one upstream goes to everybody who is connected.
"use strict";
const { WebSocket, WebSocketServer } = require("ws");

const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[3]) });
server.on("listening", () => {
  const upstream = new WebSocket(process.argv[2]);
  upstream.on("message", (data, isBinary) => {
    for (const client of server.clients) {
      if (client.readyState === WebSocket.OPEN) client.send(data, { binary: isBinary });
    }
  });
  upstream.on("close", () => process.exit());
});
