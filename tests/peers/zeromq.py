"""ZeroMQ sockets of Python's pyzmq, for tests/it/bus/zeromq.rs.

`pub` or `sub`, then `bind` or `connect`, then an address; a subscriber's topics follow. A bound socket says its address, a subscriber each message: its
frames, as text where they are UTF-8, else as hex. Each line on standard input is told to it as JSON: {"send": [frames]}, {"many": n, "topic": t},
{"subscribe": t}, {"unsubscribe": t}. A publisher is an XPUB socket, so that it can say who subscribes to what; {"count": n} makes a subscriber say nothing
until it has n more messages, and then how many were in order.
"""

import json
import sys
import threading

import zmq

role, how, address, *topics = sys.argv[1:]
context = zmq.Context()
socket = context.socket(zmq.XPUB if role == "pub" else zmq.SUB)
socket.linger = -1
if "heartbeat" in topics:
    topics.remove("heartbeat")
    socket.heartbeat_ivl = 50
    socket.heartbeat_timeout = 400
if "patient" in topics:
    topics.remove("patient")
    socket.sndhwm = socket.rcvhwm = 0


def say(**what):
    print(json.dumps(what), flush=True)


def shown(frame):
    try:
        return frame.decode()
    except UnicodeDecodeError:
        return {"hex": frame.hex()}


def frame(text):
    return bytes.fromhex(text["hex"]) if isinstance(text, dict) else text.encode()


if how == "bind":
    socket.bind(address)
    say(address=socket.last_endpoint.decode())
else:
    socket.connect(address)
for topic in topics:
    socket.subscribe(topic)

# What comes on standard input goes over a socket, too: others must not be used by two threads.
inside = context.socket(zmq.PAIR)
inside.bind("inproc://lines")


def read():
    lines = context.socket(zmq.PAIR)
    lines.connect("inproc://lines")
    for line in sys.stdin:
        lines.send_string(line)
    lines.send_string("")


threading.Thread(target=read, daemon=True).start()
poller = zmq.Poller()
poller.register(inside, zmq.POLLIN)
poller.register(socket, zmq.POLLIN)
counting, counted, last = 0, 0, -1
while True:
    ready = dict(poller.poll())
    if socket in ready:
        frames = socket.recv_multipart()
        if role == "pub":
            say(subscribed=frames[0][:1] == b"\x01", topic=shown(frames[0][1:]))
        elif counting:
            number = int(frames[-1])
            assert number == last + 1, (number, last)
            counted, last = counted + 1, number
            if counted == counting:
                say(counted=counted)
                counting = 0
        else:
            say(frames=[shown(frame) for frame in frames])
    if inside in ready:
        line = inside.recv_string()
        if not line:
            break
        told = json.loads(line)
        if "send" in told:
            socket.send_multipart([frame(text) for text in told["send"]])
        elif "many" in told:
            for number in range(told["many"]):
                socket.send_multipart([told["topic"].encode(), b"%d" % number])
        elif "count" in told:
            counting, counted, last = told["count"], 0, -1
            say(counting=True)
        elif "subscribe" in told:
            socket.subscribe(told["subscribe"])
        elif "unsubscribe" in told:
            socket.unsubscribe(told["unsubscribe"])
