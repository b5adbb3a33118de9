"""A client of HTTP/2 made of Python's httpx and h2, for tests/it/peers/http.rs, tests/it/proxying/http2_peers.rs and
tests/it/tls_server/peers.rs.

Asks for the URL it is given as many times as is said behind it, all at once and on one connection, half of them as NDJSON. A
third argument is the CA to trust.
Says when all are answered, and for each of them what it got before the event "end".

Reads no stream before all are answered. In httpcore 1.0.9 streams queue for one lock, and the one that has it reads the
connection until there is something for itself, even if what others in the queue wait for has come meanwhile. One that is
answered already, and waits for the first event, would keep those that are not from their answers until something else comes.
Like this, each that has the lock waits for what is on its way.
"""

import asyncio
import json
import ssl
import sys

import httpx


def say(**what):
    print(json.dumps(what), flush=True)


async def read(client, url, number, all_answered):
    accept = "text/event-stream" if number % 2 else "application/x-ndjson"
    texts = []
    async with client.stream("GET", url, headers={"Accept": accept}) as response:
        await all_answered(response)
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                texts.append(line.removeprefix("data: "))
            elif line.startswith("{"):
                texts.append(json.loads(line)["data"])
            if texts and texts[-1] == "end":
                return texts[:-1]
    raise EOFError(f"stream {number} has ended")


async def main(url, count, ca=None):
    waiting = count
    sockets = set()
    last = asyncio.Event()

    async def all_answered(response):
        nonlocal waiting
        waiting -= 1
        sockets.add(response.extensions["network_stream"].get_extra_info("client_addr"))
        if waiting == 0:
            say(version=response.http_version, connections=len(sockets))
            last.set()
        await last.wait()

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        http1=False,
        http2=True,
        timeout=60,
        limits=limits,
        trust_env=False,
        verify=ssl.create_default_context(cafile=ca) if ca else True,
    ) as client:
        # One connection is there before all ask at once.
        say(index=(await client.get(httpx.URL(url).copy_with(path="/"))).json())
        reading = [read(client, url, number, all_answered) for number in range(count)]
        for texts in await asyncio.gather(*reading):
            say(texts=texts)


asyncio.run(main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
