"""A webhook made of Python's aiohttp, for tests/it/bus/webhook.rs.

The arguments are what it answers: a status for each request in turn, "429:SECONDS" with Retry-After, "hang" for no answer at all; and 200 to all
others. It says its port, and each request: its path, headers and body.
"""

import asyncio
import json
import sys

from aiohttp import web

answers = iter(sys.argv[1:])


def say(**what):
    print(json.dumps(what), flush=True)


async def take(request):
    body = await request.read()
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = {"hex": body.hex()}
    say(path=request.path_qs, method=request.method, headers={name.lower(): value for name, value in request.headers.items()},
        body=text, peer=request.transport.get_extra_info("peername")[1])
    answer = next(answers, "200")
    if answer == "hang":
        await asyncio.sleep(3600)
    status, _, after = answer.partition(":")
    headers = {"Retry-After": after} if after else {}
    if status == "302":
        headers["Location"] = "/elsewhere"
    secret = request.headers.get("authorization", "nothing")
    return web.Response(status=int(status), headers=headers, text=f"you said {secret}\nand more")


async def main():
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    say(port=runner.addresses[0][1])
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
