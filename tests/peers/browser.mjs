// A real browser, driven by playwright-core, for tests/it/browser.rs.
//
// Runs the browser it is given, with an empty profile. Reads commands from standard input, an object a line, does one after
// another and says for each what came of it, or why nothing did. `page` is the number that `open` has said.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

// An import would not look into the folder that the tests name.
const { chromium } = createRequire(`${process.env.WSEVENT_TEST_NODE_MODULES}/`)("playwright-core");

// Longer than the tests themselves wait, which say better what they have waited for.
const NEVER = 24 * 60 * 60 * 1000;

const say = (what) => console.log(JSON.stringify(what));

const browser = await chromium.launch({
  executablePath: process.argv[2],
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
const pages = [];

async function open({ url, options }) {
  const page = await (await browser.newContext(options)).newPage();
  const problems = [];
  page.setDefaultTimeout(NEVER);
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) problems.push(message.text());
  });
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("dialog", (dialog) => {
    problems.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  await page.goto(url);
  return pages.push({ page, problems }) - 1;
}

const commands = {
  open,
  // The value of an expression.
  value: ({ expression }, { page }) => page.evaluate(expression),
  // The first value of an expression that is not false, looked at whenever the page is drawn.
  until: ({ expression }, { page }) =>
    page.evaluate(`(async () => {
      for (;;) {
        const value = ${expression};
        if (value) return value;
        await new Promise(requestAnimationFrame);
      }
    })()`),
  click: ({ selector }, { page }) => page.click(selector),
  fill: ({ selector, text }, { page }) => page.fill(selector, text),
  press: ({ key }, { page }) => page.keyboard.press(key),
  // What a person who looks into the console would worry about.
  problems: (_, { problems }) => problems.splice(0),
};

say({ version: browser.version() });
for await (const line of createInterface(process.stdin)) {
  const command = JSON.parse(line);
  try {
    const done = await commands[command.do](command, pages[command.page]);
    say({ done: done ?? null });
  } catch (error) {
    say({ failed: String(error) });
  }
}
await browser.close();
