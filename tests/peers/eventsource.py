"""A reader of SSE made of Python's httpx-sse, for tests/it/peers.rs.

Reads the URL it is given, with the headers that follow as NAME:VALUE, and says what it gets until the stream ends.
"""

import json
import sys

import httpx
from httpx_sse import connect_sse


def say(**what):
    print(json.dumps(what), flush=True)


headers = dict(header.split(":", 1) for header in sys.argv[2:])
with (
    httpx.Client(timeout=60, trust_env=False) as client,
    connect_sse(client, "GET", sys.argv[1], headers=headers) as source,
):
    say(resumed=source.response.headers["Wsevent-Resumed"])
    for event in source.iter_sse():
        say(type=event.event, data=event.data, id=event.id, retry=event.retry)
say(ended=True)
