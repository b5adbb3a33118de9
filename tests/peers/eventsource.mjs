// A browser's EventSource as npm's eventsource has it, for tests/it/peers.rs.
//
// Reads the URL it is given, with the headers behind it (`Name: value`), and says what happens. When the connection is lost it
// comes back by itself, as the standard wants it. A line on standard input ends it.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

// An import would not look into the folder that the tests name.
const { EventSource } = createRequire(`${process.env.WSEVENT_TEST_NODE_MODULES}/`)("eventsource");

const say = (what) => console.log(JSON.stringify(what));

const [url, ...lines] = process.argv.slice(2);
const headers = Object.fromEntries(lines.map((line) => line.split(": ", 2)));
const source = new EventSource(url, {
  fetch: async (url, init) => {
    const response = await fetch(url, { ...init, headers: { ...init.headers, ...headers } });
    say({ resumed: response.headers.get("Wsevent-Resumed"), sent: init.headers["Last-Event-ID"] ?? null });
    return response;
  },
});
source.onopen = () => say({ open: true });
source.onerror = () => say({ error: true });
const tell = ({ type, data, lastEventId }) => say({ type, data, id: lastEventId });
source.onmessage = tell;
source.addEventListener("greeting", tell);
source.addEventListener("wsevent.gap", tell);

createInterface(process.stdin).once("line", () => {
  source.close();
  process.exit(0);
});
