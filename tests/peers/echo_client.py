"""A WebSocket client made of Python's websockets, for tests/it/proxying/peers.rs.

Connects to the URL it is given, offers the subprotocols that follow, and says what was agreed on, whether a ping and
messages of all sorts have come back as they were, and how the server has closed; then, told so by a line, on another
connection, how it has closed itself.
"""

import json
import os
import sys

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

MIB = 1 << 20

MESSAGES = [
    "plain",
    "é ✓ 𝄞",
    bytes(range(256)),
    "",
    b"",
    "x" * MIB,
    os.urandom(MIB),
    *[b"y" * size for size in (125, 126, 127, 65_535, 65_536, 65_537)],
]


def say(**what):
    print(json.dumps(what), flush=True)


def opened():
    protocols = sys.argv[2:] or None
    return connect(sys.argv[1], subprotocols=protocols, max_size=1 << 24)


with opened() as socket:
    extensions = socket.response.headers.get("Sec-WebSocket-Extensions")
    say(extensions=extensions, subprotocol=socket.subprotocol)
    say(pong=socket.ping(b"are you there?").wait(60))
    same = 0
    for message in MESSAGES:
        socket.send(message)
        same += socket.recv() == message
    # In fragments.
    socket.send(["frag", "", "mented ✓"])
    same += socket.recv() == "fragmented ✓"
    # Many on their way at once.
    for number in range(1000):
        socket.send(f"number {number}")
    for number in range(1000):
        same += socket.recv() == f"number {number}"
    say(same=same, of=len(MESSAGES) + 1 + 1000)
    socket.send("close 4321")
    try:
        socket.recv()
    except ConnectionClosed:
        say(closed=socket.close_code, reason=socket.close_reason)
# By now the server may not have said that the first is closed.
sys.stdin.readline()
with opened() as socket:
    socket.close(4322, "enough")
    say(closed=socket.close_code)
