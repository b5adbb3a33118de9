"""A feed made of Python's websockets, for tests/it/hothot.rs.

Says its port, then "connected" for each connection. Each line on standard input is sent to all that are connected.
"""

import json
import sys
import threading

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

connections = []
lock = threading.Lock()


def say(**what):
    print(json.dumps(what), flush=True)


def handle(socket):
    with lock:
        connections.append(socket)
        say(connected=len(connections))
    try:
        for _ in socket:
            pass
    except ConnectionClosed:
        pass
    finally:
        with lock:
            connections.remove(socket)


with serve(handle, "127.0.0.1", 0) as server:
    say(port=server.socket.getsockname()[1])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for line in sys.stdin:
        with lock:
            for socket in connections:
                try:
                    socket.send(line.rstrip("\n"))
                except ConnectionClosed:
                    pass
