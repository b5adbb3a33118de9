"""Answers who asks for an order: docs/scenarios/websocket-gateway.md. Needs Python 3.10; websocket-gateway-backend.py http://localhost:8082/gateway"""

import contextlib, http.client, json, re, sys, time, urllib.error, urllib.request

WENT_WRONG = (OSError, http.client.HTTPException)


def hear(gateway):
    """Every event from now on, as NDJSON, an event a line; behind the last one, when the connection was lost."""
    last = ""
    while True:
        with contextlib.suppress(*WENT_WRONG):
            request = urllib.request.Request(f"{gateway}?last_event_id={last}", headers={"Accept": "application/x-ndjson"})
            with urllib.request.urlopen(request, timeout=60) as lines:
                for event in map(json.loads, filter(bytes.strip, lines)):
                    if "id" in event:
                        last = event["id"]
                        yield event.get("data", "")
        time.sleep(0.5)


def say(gateway, text):
    """Publishes it. As long as the gateway says that it does not take anything, it has not."""
    message = json.dumps({"from": "orders", "text": text}).encode()
    while True:
        try:
            return urllib.request.urlopen(urllib.request.Request(gateway, message), timeout=60).close()
        except urllib.error.HTTPError as refused:
            if refused.code != 503:
                raise
            time.sleep(float(refused.headers.get("Retry-After", 1)))


gateway = sys.argv[1]
for message in hear(gateway):
    with contextlib.suppress(ValueError, RecursionError):  # not everybody speaks JSON
        match json.loads(message):
            case {"from": str(who), "text": str(text)} if who != "orders":
                if asked := re.match(r"orders, where is (\d+)\?", text):
                    try:
                        say(gateway, f"{who}, {asked[1]} is on its way")
                    except WENT_WRONG as error:
                        print(f"not answered: {error}", file=sys.stderr)
