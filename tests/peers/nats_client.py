"""A client of NATS made of nats-py, for tests/it/bus/nats.rs.

Connects to the URL it is given, with the options behind it (`token=...`, `ca=FILE`), and does what the lines on standard input
say, each a JSON object. It says when it has done it, and what it gets from what it has subscribed to.
"""

import asyncio
import json
import ssl
import sys

import nats
from nats.js.api import ConsumerConfig, DeliverPolicy, StreamConfig


def say(**what):
    print(json.dumps(what), flush=True)


def shown(message):
    return {
        "subject": message.subject,
        "headers": message.headers or {},
        "payload": message.data.decode(errors="replace"),
    }


async def do(client, streams, command):
    what = command["do"]
    if what == "publish":
        for payload in command["payloads"]:
            await client.publish(command["subject"], payload.encode(), headers=command.get("headers"))
        await client.flush()
    elif what == "subscribe":

        async def got(message):
            say(**shown(message))

        await client.subscribe(command["subject"], cb=got)
        await client.flush()
    elif what == "add_stream":
        await streams.add_stream(StreamConfig(**command["config"]))
    elif what == "delete_stream":
        await streams.delete_stream(command["name"])
    elif what == "purge_stream":
        await streams.purge_stream(command["name"], keep=command.get("keep"))
    elif what == "store":
        for payload in command["payloads"]:
            await streams.publish(command["subject"], payload.encode(), headers=command.get("headers"))
    elif what == "read_stream":
        # From its beginning to what is its end now.
        info = await streams.stream_info(command["name"])
        config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
        subscription = await streams.subscribe(">", stream=command["name"], config=config, ordered_consumer=True)
        messages = []
        while len(messages) < info.state.messages:
            messages.append(shown(await subscription.next_msg(timeout=30)))
        await subscription.unsubscribe()
        return {"messages": messages}
    elif what == "state":
        state = (await streams.stream_info(command["name"])).state
        return {"messages": state.messages, "first": state.first_seq, "last": state.last_seq}
    else:
        raise ValueError(what)
    return {"done": what}


async def main():
    url, *options = sys.argv[1:]
    options = dict(option.split("=", 1) for option in options)
    context = ssl.create_default_context(cafile=options.pop("ca")) if "ca" in options else None
    client = await nats.connect(url, tls=context, max_reconnect_attempts=-1, reconnect_time_wait=0.1, **options)
    streams = client.jetstream(timeout=30)
    say(ready=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        say(**await do(client, streams, json.loads(line)))
    await client.close()


asyncio.run(main())
