"""A WebSocket client made of Python's websockets, for tests/it/peers.rs.

Connects to the URL it is given, with the headers behind it (`Name: value`), pings, and says what it gets until the connection
ends. A line on standard input is sent as a message.
"""

import base64
import json
import sys
import threading

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

PROTOCOL = "Sec-WebSocket-Protocol"


def say(**what):
    print(json.dumps(what), flush=True)


def send_lines(socket):
    for line in sys.stdin:
        socket.send(line.rstrip("\n"))


url, *headers = sys.argv[1:]
headers = [header.split(": ", 1) for header in headers]
# It sends this one by itself, and insists on what it has offered.
subprotocols = [value for name, value in headers if name == PROTOCOL] or None
headers = [header for header in headers if header[0] != PROTOCOL]
try:
    connection = connect(url, additional_headers=headers, subprotocols=subprotocols)
except InvalidStatus as refusal:
    say(refused=refusal.response.status_code)
    sys.exit()
with connection as socket:
    say(extensions=socket.response.headers.get("Sec-WebSocket-Extensions"), subprotocol=socket.subprotocol)
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
