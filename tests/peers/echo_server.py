"""A WebSocket server made of Python's websockets, for tests/it/proxying/peers.rs.

Says its port, then for each connection what it was asked, and how it was closed. Sends everything back; "close CODE" is
done at once. Knows the subprotocols it is given.
"""

import json
import sys

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve


def say(**what):
    print(json.dumps(what), flush=True)


def handle(socket):
    headers = socket.request.headers
    say(
        path=socket.request.path,
        extensions=headers.get("Sec-WebSocket-Extensions"),
        client=headers.get("X-Forwarded-For"),
    )
    try:
        while True:
            message = socket.recv()
            if isinstance(message, str) and message.startswith("close "):
                socket.close(int(message.removeprefix("close ")), "as you wish")
            else:
                socket.send(message)
    except ConnectionClosed:
        say(closed=socket.close_code)


protocols = sys.argv[1:] or None
with serve(handle, "127.0.0.1", 0, subprotocols=protocols, max_size=1 << 24) as server:
    say(port=server.socket.getsockname()[1])
    server.serve_forever()
