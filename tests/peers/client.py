"""A WebSocket client made of Python's websockets, for tests/it/peers.rs.

Connects to the URL it is given, pings, and says what it gets until the connection ends. A line on standard input is
sent as a message.
"""

import base64
import json
import sys
import threading

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect


def say(**what):
    print(json.dumps(what), flush=True)


def send_lines(socket):
    for line in sys.stdin:
        socket.send(line.rstrip("\n"))


with connect(sys.argv[1]) as socket:
    say(extensions=socket.response.headers.get("Sec-WebSocket-Extensions"))
    say(pong=socket.ping(b"are you there?").wait(60))
    threading.Thread(target=send_lines, args=[socket], daemon=True).start()
    try:
        while True:
            event = socket.recv()
            kind = "text" if isinstance(event, str) else "binary"
            data = event.encode() if isinstance(event, str) else event
            say(kind=kind, base64=base64.b64encode(data).decode())
    except ConnectionClosed:
        say(closed=socket.close_code)
