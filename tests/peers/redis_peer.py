"""Redis clients made of Python's redis, for tests/it/bus/redis.rs: they know nothing of wsevent.

    redis_peer.py URL publish CHANNEL      a line on standard input is published as it is
    redis_peer.py URL subscribe CHANNEL    says what is published; psubscribe: with a pattern
    redis_peer.py URL add KEY              a line on standard input is a JSON object: the fields of an entry, `*` its id
    redis_peer.py URL read KEY             says the fields of each entry, from the first one on
"""

import base64
import json
import sys

import redis


def say(**what):
    print(json.dumps(what), flush=True)


def text(value):
    return value.decode(errors="backslashreplace")


def said(data):
    try:
        data.decode()
        kind = "text"
    except UnicodeDecodeError:
        kind = "binary"
    return {"kind": kind, "base64": base64.b64encode(data).decode()}


def lines():
    return (line.rstrip("\n") for line in sys.stdin)


url, role, name = sys.argv[1:]
client = redis.Redis.from_url(url)
if role == "publish":
    say(ready=client.ping())
    for line in lines():
        say(receivers=client.publish(name, line))
elif role in ("subscribe", "psubscribe"):
    subscription = client.pubsub()
    getattr(subscription, role)(name)
    for message in subscription.listen():
        if message["type"] == role:
            say(ready=True)
        else:
            say(channel=text(message["channel"]), **said(message["data"]))
elif role == "add":
    say(ready=client.ping())
    for line in lines():
        fields = json.loads(line)
        entry = fields.pop("*", "*")
        say(id=text(client.xadd(name, fields, id=entry)))
elif role == "read":
    say(ready=client.ping())
    last = "0"
    while True:
        for _, entries in client.xread({name: last}, block=60_000):
            for last, fields in entries:
                say(id=text(last), fields={text(field): text(value) for field, value in fields.items()})
