"""An event stream made by Python's aiohttp-sse, for tests/it/peers.rs.

Says its port, then for each request what it was asked; sends two events behind the one whose id it was given, and ends
the stream.
"""

import asyncio
import json
import socket

from aiohttp import web
from aiohttp_sse import sse_response

# Type, data, id.
EVENTS = [
    (None, "plain", "1"),
    ("named", "é ✓ 𝄞", "2"),
    (None, "two\nlines", "3"),
    (None, "", "4"),
    (None, "x" * 100_000, "5"),
    ("named", "last", "6"),
]


def say(**what):
    print(json.dumps(what), flush=True)


async def feed(request):
    last = request.headers.get("Last-Event-ID")
    say(last=last)
    async with sse_response(request) as response:
        first = int(last or 0)
        for event_type, data, event_id in EVENTS[first : first + 2]:
            await response.send(data, event=event_type, id=event_id, retry=100)
    return response


async def moved(request):
    raise web.HTTPFound("/feed")


async def main():
    app = web.Application()
    app.add_routes([web.get("/feed", feed), web.get("/moved", moved)])
    runner = web.AppRunner(app)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listener).start()
    say(port=listener.getsockname()[1])
    await asyncio.Event().wait()


asyncio.run(main())
