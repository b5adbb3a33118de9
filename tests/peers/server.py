"""A WebSocket server made of Python's websockets, for tests/it/peers.rs.

Says its port, then for its connection what it was asked and told; pings, and for a line on standard input sends its
events and closes.
"""

import json
import sys

from websockets.sync.server import serve

MIB = 1 << 20

EVENTS = [
    "plain",
    "é ✓ 𝄞",
    bytes(range(256)),
    "",
    b"",
    "x" * MIB,
    bytes(at % 251 for at in range(MIB)),
    ["frag", "", "mented ✓"],
    [b"\xff" * 100_000, b"", b"end"],
    "last",
]


def say(**what):
    print(json.dumps(what), flush=True)


def handle(socket):
    say(path=socket.request.path, header=socket.request.headers.get("X-Peer"))
    say(message=socket.recv())
    say(pong=socket.ping(b"are you there?").wait(60))
    sys.stdin.readline()
    for event in EVENTS:
        # A list is sent in fragments.
        socket.send(event)
    socket.close(1000, "that is all")
    say(closed=socket.close_code)


with serve(handle, "127.0.0.1", 0) as server:
    say(port=server.socket.getsockname()[1])
    server.serve_forever()
