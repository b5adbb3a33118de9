"""Answers who speaks to it: docs/scenarios/chat.md. Needs Python 3.10 and websockets; chat-bot.py ws://localhost:8080/rooms/lobby"""

import asyncio, contextlib, json, sys, websockets


async def answer(room):
    async for socket in websockets.connect(room):  # for ever: it connects again when it is cut off
        with contextlib.suppress(websockets.ConnectionClosed):
            async for message in socket:
                with contextlib.suppress(ValueError, RecursionError):  # not everybody speaks JSON
                    match json.loads(message):
                        case {"from": str(who), "text": str(text)} if who != "bot" and text.startswith("bot, "):
                            await socket.send(json.dumps({"from": "bot", "text": f"{who}, you said: {text[5:]}"}))


asyncio.run(answer(sys.argv[1]))
