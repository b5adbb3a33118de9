"""Parts that know ZeroMQ only: docs/scenarios/broadcaster-forwarder-streamer.md. Needs Python 3.10 and pyzmq.

    broadcaster-forwarder-streamer.py forward 5559 5560             from publishers to subscribers, until it is stopped
    broadcaster-forwarder-streamer.py publish localhost:5559 news   each line of standard input
    broadcaster-forwarder-streamer.py subscribe localhost:5560 news prints what comes, one a line
"""

import sys, zmq

context = zmq.Context()


def bind(kind, port):
    """A socket to which others connect; with port 0, on any that is free. It says which."""
    socket = context.socket(kind)
    socket.bind(f"tcp://127.0.0.1:{port if int(port) else '*'}")
    print(socket.getsockopt_string(zmq.LAST_ENDPOINT), flush=True)
    return socket


def connect(kind, address):
    socket = context.socket(kind)
    socket.connect(f"tcp://{address}")
    return socket


match sys.argv[1:]:
    case "forward", publishers, subscribers:
        zmq.proxy(bind(zmq.XSUB, publishers), bind(zmq.XPUB, subscribers))
    case "publish", address, topic:
        socket = connect(zmq.PUB, address)
        for line in sys.stdin:
            socket.send_multipart([topic.encode(), line.rstrip("\n").encode()])
    case "subscribe", address, topic:
        socket = connect(zmq.SUB, address)
        socket.subscribe(topic)
        while True:
            _, payload = socket.recv_multipart()
            print(payload.decode(), flush=True)
    case _:
        sys.exit(__doc__)
