// A client of HTTP/2 made of Node's http2, for tests/it/peers/http.rs, tests/it/proxying/http2_peers.rs and
// tests/it/tls_server/peers.rs.
//
// Does what http2.py does, with two differences: it reads each stream as soon as it is answered, and its windows of flow
// control (RFC 9113, section 5.2) are HTTP/2's small ones.

import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect } from "node:http2";

const say = (what) => console.log(JSON.stringify(what));

const [, , url, count, ca] = process.argv;
const { origin, pathname } = new URL(url);
const session = connect(origin, ca && { ca: readFileSync(ca) });

async function* lines(stream) {
  let rest = "";
  for await (const piece of stream.setEncoding("utf8")) {
    const all = (rest + piece).split("\n");
    rest = all.pop();
    yield* all;
  }
}

async function index() {
  const stream = session.request({ ":path": "/" });
  return JSON.parse((await stream.setEncoding("utf8").toArray()).join(""));
}

let waiting = Number(count);

async function read(number) {
  const accept = number % 2 ? "text/event-stream" : "application/x-ndjson";
  const stream = session.request({ ":path": pathname, accept });
  const [head] = await once(stream, "response");
  if (head[":status"] !== 200) throw new Error(`stream ${number} is answered ${head[":status"]}`);
  waiting -= 1;
  // A session is a connection.
  if (waiting === 0) say({ version: "HTTP/2", connections: 1 });
  const texts = [];
  for await (const line of lines(stream)) {
    if (line.startsWith("data: ")) texts.push(line.slice("data: ".length));
    else if (line.startsWith("{")) texts.push(JSON.parse(line).data);
    if (texts.at(-1) === "end") return texts.slice(0, -1);
  }
  throw new Error(`stream ${number} has ended`);
}

// One connection is there before all ask at once.
say({ index: await index() });
const reading = Array.from({ length: waiting }, (_, number) => read(number));
for (const texts of await Promise.all(reading)) say({ texts });
session.close();
