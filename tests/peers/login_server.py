"""A WebSocket server made of Python's websockets, for tests/it/login/peers.rs.

Greets, wants a login with the right key, then a subscription; sends events from then on, and drops who has not said
{"op":"ping"} for as many seconds as its argument says. Says its port, and which subscription has outlived twice that time;
for a line on standard input everybody gets a last event.
"""

import asyncio
import json
import sys

from websockets.asyncio.server import serve

PATIENCE = float(sys.argv[1])
told = asyncio.Event()


def say(**what):
    print(json.dumps(what), flush=True)


async def trades(socket):
    number = 0
    while not told.is_set():
        await socket.send(json.dumps({"type": "trade", "number": number}))
        number += 1
        await asyncio.sleep(0.05)
    await socket.send(json.dumps({"type": "end"}))


async def outlive(channel):
    await asyncio.sleep(2 * PATIENCE)
    say(outlived=channel)


async def pings(socket):
    while True:
        try:
            message = await asyncio.wait_for(socket.recv(), PATIENCE)
        except TimeoutError:
            await socket.close(4008, "no ping")
            return
        if json.loads(message) == {"op": "ping"}:
            await socket.send(json.dumps({"type": "pong"}))


async def handle(socket):
    await socket.send(json.dumps({"type": "hello"}))
    login = json.loads(await asyncio.wait_for(socket.recv(), 60))
    if login.get("op") != "login" or login.get("key") != "s3same":
        await socket.close(4001, f"bad key {login.get('key')}")
        return
    await socket.send(json.dumps({"type": "notice", "text": "one moment"}))
    await socket.send(json.dumps({"type": "login", "ok": True}))
    subscription = json.loads(await asyncio.wait_for(socket.recv(), 60))
    channel = subscription["channel"]
    tasks = [asyncio.create_task(task) for task in (trades(socket), outlive(channel))]
    try:
        await pings(socket)
    finally:
        for task in tasks:
            task.cancel()


async def main():
    async with serve(handle, "127.0.0.1", 0) as server:
        say(port=server.sockets[0].getsockname()[1])
        await asyncio.to_thread(sys.stdin.readline)
        told.set()
        await asyncio.to_thread(sys.stdin.readline)


asyncio.run(main())
