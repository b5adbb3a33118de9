"""A server made of Python's aiohttp, for tests/it/proxying/peers.rs.

Says its port, then for each request what it was asked. /upload says what has come; /feed is an event stream, an event for each line
on standard input, which ends with the line "end"; /echo is a WebSocket; / is a page.
"""

import asyncio
import hashlib
import json
import socket
import sys

from aiohttp import WSMsgType, web
from aiohttp_sse import sse_response


def say(**what):
    print(json.dumps(what), flush=True)


readers = set()


async def feed(request):
    say(feed=request.headers.get("Last-Event-ID"), via=request.headers.get("Via"))
    events = asyncio.Queue()
    async with sse_response(request) as response:
        await response.send("welcome")
        readers.add(events)
        say(reading=len(readers))
        while (text := await events.get()) != "end":
            await response.send(text, id=text, retry=100)
    return response


async def upload(request):
    digest, size = hashlib.sha256(), 0
    async for piece in request.content.iter_any():
        digest.update(piece)
        size += len(piece)
    say(upload=size, proto=request.headers.get("X-Forwarded-Proto"))
    return web.json_response({"size": size, "sha256": digest.hexdigest()})


async def echo(request):
    answer = web.WebSocketResponse()
    await answer.prepare(request)
    say(echo=True, proto=request.headers.get("X-Forwarded-Proto"))
    async for message in answer:
        if message.type == WSMsgType.TEXT:
            await answer.send_str(message.data)
        elif message.type == WSMsgType.BINARY:
            await answer.send_bytes(message.data)
    say(closed=answer.close_code)
    return answer


async def page(_):
    return web.Response(text="<!doctype html><title>page</title><link rel=icon href=data:,>", content_type="text/html")


async def main():
    app = web.Application(client_max_size=1 << 30)
    routes = [("/feed", feed), ("/echo", echo), ("/", page)]
    app.add_routes([web.get(path, handler) for path, handler in routes])
    app.add_routes([web.route("*", "/upload", upload)])
    runner = web.AppRunner(app)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listener).start()
    say(port=listener.getsockname()[1])
    while line := await asyncio.to_thread(sys.stdin.readline):
        for events in readers:
            events.put_nowait(line.rstrip("\n"))
        if line == "end\n":
            readers.clear()


asyncio.run(main())
