"""A room made of Python's websockets, for tests/it/bench.rs: what one client sends, all others get; but every N-th message
nobody gets, and every M-th they get twice (0 for never).

    careless.py N M

Says its port.
"""

import asyncio
import json
import sys

from websockets.asyncio.server import broadcast, serve

DROP, REPEAT = (int(argument) for argument in sys.argv[1:])
clients = set()
count = 0


async def handle(socket):
    global count
    clients.add(socket)
    try:
        async for message in socket:
            count += 1
            if DROP and count % DROP == 0:
                continue
            others = clients - {socket}
            broadcast(others, message)
            if REPEAT and count % REPEAT == 0:
                broadcast(others, message)
    finally:
        clients.discard(socket)


async def main():
    async with serve(handle, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        print(json.dumps({"port": port}), flush=True)
        await asyncio.get_running_loop().create_future()


asyncio.run(main())
