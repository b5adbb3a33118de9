"""Ten instances of wsevent in three network namespaces, one fault a second, and a count of what got through.

Started by scripts/chaos, which makes the namespaces that this process is in: its own network, mounts and processes, so that nothing
is left when it ends, however it ends. Standard library only: what it measures with must not be what it measures.
"""

import argparse
import asyncio
import base64
import ctypes
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time

PORT = 9000
PATH = "/events"
HOLD = 60  # Seconds that what a process has to do may take at most.


class Instance:
    """A place for a process: which namespace it is in, and with which flags it runs."""

    def __init__(self, name, site, flags, rate=0):
        self.name, self.site, self.flags, self.rate = name, site, flags, rate
        self.number = None
        self.process = None
        self.is_stopped = False

    @property
    def address(self):
        return f"10.77.0.{self.site}"

    @property
    def port(self):
        return PORT + self.number

    @property
    def url(self):
        return f"ws://{self.address}:{self.port}{PATH}"


def topology(has_peers):
    """Two that are published to, two pairs of relays that consume both of the pair before, a mesh (or a ring), and one at the end."""

    def consume(*names):
        return [flag for name in names for flag in ("--consume", "{" + name + "}")]

    def others(*names):
        if has_peers:
            return [flag for name in names for flag in ("--peer", "{" + name + "}")]
        return consume(names[0])

    publish = ["--accept-publish", "--insecure-publish"]
    instances = [
        Instance("p1", 1, publish, 1750),
        Instance("p2", 1, publish, 1750),
        Instance("m1", 1, publish + others("m2", "m3"), 500),
        Instance("r1", 2, consume("p1", "p2")),
        Instance("r2", 2, consume("p1", "p2")),
        Instance("m2", 2, publish + others("m3", "m1"), 500),
        Instance("h1", 3, consume("r1", "r2")),
        Instance("h2", 3, consume("r1", "r2")),
        Instance("m3", 3, publish + others("m1", "m2"), 500),
        Instance("e", 3, consume("h1", "m3")),
    ]
    for number, instance in enumerate(instances):
        instance.number = number
    return {instance.name: instance for instance in instances}


# ---- namespaces


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=HOLD)


def make_network():
    """A bridge here, and three namespaces on it. Whether the kernel can delay and lose packets."""
    ip("link", "set", "lo", "up")
    ip("link", "add", "bridge", "type", "bridge")
    ip("addr", "add", "10.77.0.254/24", "dev", "bridge")
    ip("link", "set", "bridge", "up")
    for site in (1, 2, 3):
        ip("netns", "add", f"site{site}")
        ip("link", "add", f"to{site}", "type", "veth", "peer", "name", "eth0", "netns", f"site{site}")
        ip("link", "set", f"to{site}", "master", "bridge", "up")
        ip("-n", f"site{site}", "addr", "add", f"10.77.0.{site}/24", "dev", "eth0")
        ip("-n", f"site{site}", "link", "set", "eth0", "up")
        ip("-n", f"site{site}", "link", "set", "lo", "up")
    try:
        for site in (1, 2, 3):
            words = f"qdisc add dev to{site} root netem delay 3ms 2ms loss 0.1%".split()
            subprocess.run(["tc", *words], check=True, capture_output=True, timeout=HOLD)
        return True
    except (OSError, subprocess.CalledProcessError):
        return False


# ---- processes


class Topology:
    def __init__(self, binary, logs):
        self.binary, self.logs = binary, logs
        text = subprocess.run([binary, "--help"], capture_output=True, text=True, timeout=HOLD).stdout
        self.has_peers = "--peer " in text
        self.instances = topology(self.has_peers)
        self.starts = 0

    def start(self, instance):
        urls = {name: other.url for name, other in self.instances.items()}
        flags = [flag.format(**urls) for flag in instance.flags]
        words = ["ip", "netns", "exec", f"site{instance.site}", self.binary]
        words += ["--serve", f"{instance.address}:{instance.port}{PATH}", "--ping-interval", "1s", *flags]
        self.starts += 1
        with open(os.path.join(self.logs, instance.name), "ab") as log:
            instance.process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={"PATH": os.environ["PATH"]},
                preexec_fn=die_with_parent,
            )

    def kill(self, instance):
        instance.process.kill()
        instance.process.wait(HOLD)
        instance.is_stopped = False

    def pause(self, instance, is_stopped):
        instance.process.send_signal(signal.SIGSTOP if is_stopped else signal.SIGCONT)
        instance.is_stopped = is_stopped


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


# ---- what is published


class Publisher:
    """Posts events to one instance; of each that was acknowledged it knows the id."""

    def __init__(self, instance, acknowledged):
        self.instance, self.acknowledged = instance, acknowledged
        self.failures = 0

    async def run(self, running):
        number = 0
        while running():
            try:
                reader, writer = await asyncio.wait_for(
                    asyncio.open_connection(self.instance.address, self.instance.port), 1
                )
            except (OSError, asyncio.TimeoutError):
                self.failures += 1
                await asyncio.sleep(0.1)
                continue
            try:
                begin, sent = time.monotonic(), 0
                while running():
                    due = int((time.monotonic() - begin) * self.instance.rate) - sent
                    if due > 0:
                        due = min(due, 500)
                        lines = [json.dumps({"data": f"{self.instance.name} {number + i} " + "." * 60}) for i in range(due)]
                        number += due
                        sent += due
                        await asyncio.wait_for(self.post(reader, writer, "\n".join(lines)), 2)
                    await asyncio.sleep(0.02)
            except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, ValueError):
                self.failures += 1
            writer.transport.abort()

    async def post(self, reader, writer, body):
        head = f"POST {PATH} HTTP/1.1\r\nHost: {self.instance.address}\r\nContent-Type: application/x-ndjson\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write((head + body).encode())
        answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = int(re.search(r"(?i)content-length: *(\d+)", answer)[1])
        text = await reader.readexactly(length)
        if " 202 " not in answer.split("\r\n")[0]:
            raise ValueError(answer)
        for event in json.loads(text)["ids"]:
            origin, _, seq = event.rpartition("-")
            self.acknowledged[origin] = max(self.acknowledged.get(origin, 0), int(seq))
            self.instance.origin = origin


# ---- who reads


class Subscriber:
    """Follows a hop link, as docs/protocol.md says how; goes on elsewhere with what it has. Counts what should not be."""

    def __init__(self, name, places):
        self.name, self.places, self.at = name, places, 0
        self.have = {}
        self.delivered = self.repeated = self.missing = self.gaps = self.told = self.connections = 0
        self.by_number = self.covered = 0
        self.last_event = time.monotonic()
        self.complaints = []
        self.task = None

    async def run(self):
        while True:
            place = self.places[self.at]
            try:
                async with asyncio.timeout(3):
                    reader, writer = await asyncio.open_connection(place.address, place.port, limit=1 << 20)
            except (OSError, asyncio.TimeoutError):
                self.move()
                await asyncio.sleep(0.1)
                continue
            try:
                await self.follow(place, reader, writer)
            except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.transport.abort()
            self.move()
            await asyncio.sleep(0.1)

    def move(self):
        self.at = (self.at + 1) % len(self.places)

    async def follow(self, place, reader, writer):
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            f"GET {PATH} HTTP/1.1\r\nHost: {place.address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: wsevent.v1\r\n\r\n".encode()
        )
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise OSError(head)
        ids = ",".join(f"{origin}-{seq}" for origin, seq in self.have.items())
        # What it has heard nothing of before may have begun while it was away.
        hello = f"!hello from=first have={ids}" if ids else "!hello from=live"
        self.send(writer, 1, hello.encode())
        self.connections += 1
        here, open_gaps, is_unknown = {}, [], False
        buffer = bytearray()
        while True:
            # A ping comes every second.
            piece = await asyncio.wait_for(reader.read(1 << 18), 4)
            if not piece:
                return
            buffer += piece
            at = 0
            while True:
                frame = parse(buffer, at)
                if frame is None:
                    break
                opcode, begin, at = frame
                if opcode in (1, 2):
                    is_unknown |= self.message(buffer, begin, at, here, open_gaps, is_unknown)
                elif opcode == 9:
                    self.send(writer, 10, bytes(buffer[begin:at]))
                elif opcode == 8:
                    return
            del buffer[:at]

    def send(self, writer, opcode, payload):
        mask = os.urandom(4)
        length = len(payload)
        head = bytes([0x80 | opcode]) + (bytes([0x80 | length]) if length < 126 else b"\xfe" + struct.pack(">H", length))
        writer.write(head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload)))

    def message(self, buffer, begin, end, here, open_gaps, is_unknown):
        """Takes one message. Whether it says that nothing of what this reader has is known."""
        if buffer[begin] == 33:  # !
            line = buffer[begin:end].decode()
            word, *fields = line.split(" ")
            fields = dict(field.partition("=")[::2] for field in fields)
            if word == "!gap":
                self.gaps += 1
                open_gaps.append((fields.get("after"), fields.get("next"), fields.get("lost")))
            return word == "!welcome" and fields.get("resumed") == "no"
        space = buffer.index(b" ", begin, begin + 64)
        name, _, seq = buffer[begin:space].decode().rpartition("-")
        seq = int(seq)
        before = here.get(name, 0)
        here[name] = seq
        if seq <= before:
            self.repeated += 1
            self.complain(f"{name}-{seq} behind {before} on one connection")
            return False
        last = self.have.get(name)
        if last is not None and seq <= last:
            self.covered += 1
            return False
        self.have[name] = seq
        self.delivered += 1
        self.last_event = time.monotonic()
        if last is not None and seq > last + 1:
            self.look_for_notice(name, last, seq, before, open_gaps, is_unknown)
        return False

    def look_for_notice(self, name, last, seq, before, open_gaps, is_unknown):
        missing = range(last + 1, seq)
        untold = [number for number in missing if not any(covers(gap, name, number, seq) for gap in open_gaps)]
        self.told += len(missing) - len(untold)
        if not untold:
            return
        if is_unknown:
            self.told += len(untold)
        elif before == 0 and not any(gap_is_of(gap, name) for gap in open_gaps):
            # The first of its origin on this connection: if the hop has never heard of that, only the number can say it.
            self.by_number += len(untold)
        else:
            self.missing += len(untold)
            self.complain(f"{len(untold)} missing between {name}-{last} and {seq}, told were {open_gaps[-3:]}")

    def complain(self, text):
        if len(self.complaints) < 20:
            self.complaints.append(f"{self.name} at {self.places[self.at].name}: {text}")


class Reader(Subscriber):
    """Follows a body of Server-Sent Events, with the last id alone: a place in the order of the process that it reads from."""

    def __init__(self, name, place):
        super().__init__(name, [place])
        self.last = self.process = None

    async def follow(self, place, reader, writer):
        resume = f"Last-Event-ID: {self.last}\r\n" if self.last else ""
        writer.write(f"GET {PATH} HTTP/1.1\r\nHost: {place.address}\r\nAccept: text/event-stream\r\n{resume}\r\n".encode())
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode("latin-1")
        if " 200 " not in head.split("\r\n")[0]:
            raise OSError(head)
        fields = dict(line.lower().partition(": ")[::2] for line in head.split("\r\n"))
        self.connections += 1
        if fields["wsevent-instance"] != self.process or fields["wsevent-resumed"] == "no":
            # In another order one id does not say what this reader has; and where it is not known, the body begins with the next event.
            self.have = {}
        self.process = fields["wsevent-instance"]
        open_gaps, buffer = [], b""
        while True:
            # A comment comes every second.
            piece = await asyncio.wait_for(reader.read(1 << 18), 4)
            if not piece:
                return
            *blocks, buffer = (buffer + piece).split(b"\n\n")
            for block in blocks:
                self.block(block.decode(), open_gaps)

    def block(self, block, open_gaps):
        fields = dict(line.partition(": ")[::2] for line in block.split("\n"))
        if fields.get("event") == "wsevent.gap":
            self.gaps += 1
            gap = json.loads(fields["data"])
            open_gaps.append((gap["after"], gap["next"], gap["lost"], set()))
        if "id" not in fields:
            return
        self.last = fields["id"]
        if "data" not in fields:
            # Where the stream begins.
            return
        name, seq = split(self.last)
        last = self.have.get(name)
        if last is not None and seq <= last:
            self.repeated += 1
            self.complain(f"{name}-{seq} behind {last}")
            return
        self.have[name] = seq
        self.delivered += 1
        self.last_event = time.monotonic()
        untold = [
            number for number in range((last or seq) + 1, seq)
            if not any(covers(gap[:3], name, number, seq) or is_in_log(gap, name) for gap in open_gaps)
        ]
        self.told += max(0, seq - (last or seq) - 1) - len(untold)
        if untold:
            self.missing += len(untold)
            self.complain(f"{len(untold)} missing between {name}-{last} and {seq}, told were {open_gaps[-3:]}")
        for gap in open_gaps:
            gap[3].add(name)


def is_in_log(gap, name):
    """Whether a notice is of all origins, in the order of the log, and no event of this one has come since."""
    (after, first), (following, end) = split(gap[0]), split(gap[1])
    is_of_one = after and after == following and gap[2] is not None and gap[2] < end - first
    return not is_of_one and name not in gap[3]


def parse(buffer, at):
    """The frame at this place: its opcode, and where its payload begins and ends; none if it is not all there."""
    have = len(buffer) - at
    if have < 2:
        return None
    length, begin = buffer[at + 1] & 0x7F, at + 2
    if length == 126:
        if have < 4:
            return None
        length, begin = buffer[at + 2] << 8 | buffer[at + 3], at + 4
    elif length == 127:
        if have < 10:
            return None
        length, begin = struct.unpack_from(">Q", buffer, at + 2)[0], at + 10
    end = begin + length
    return None if end > len(buffer) else (buffer[at] & 15, begin, end)


def split(event):
    name, _, seq = (event or "").rpartition("-")
    return name, int(seq) if seq.isdigit() else 0


def gap_is_of(gap, name):
    return name in (split(gap[0])[0], split(gap[1])[0])


def covers(gap, name, number, seq):
    """Whether this notice tells of an event, which is missing before the one that has come."""
    after, following, lost = split(gap[0]), split(gap[1]), gap[2]
    if following[0] == name:
        return following[1] >= seq > number and (after[0] != name or after[1] < number) and following[1] == seq
    if not following[0] and after[0] == name:
        return number > after[1] and (lost is None or number <= after[1] + int(lost))
    return False


# ---- faults


class Chaos:
    def __init__(self, topology, seed):
        self.topology, self.random = topology, random.Random(seed)
        self.counts = {"killed": 0, "stopped": 0, "cut off": 0}
        self.down = set()

    async def run(self, until):
        pending = set()
        while time.monotonic() < until:
            begin = time.monotonic()
            fault = self.random.choice((self.kill, self.kill, self.stop, self.stop, self.cut))
            task = asyncio.create_task(fault())
            pending.add(task)
            task.add_done_callback(pending.discard)
            await asyncio.sleep(max(0, begin + 1 - time.monotonic()))
        if pending:
            await asyncio.wait(pending, timeout=10)

    def anyone(self):
        running = [i for i in self.topology.instances.values() if i.process.poll() is None and not i.is_stopped]
        return self.random.choice(running)

    async def kill(self):
        instance = self.anyone()
        self.topology.kill(instance)
        self.counts["killed"] += 1
        await asyncio.sleep(self.random.uniform(0, 0.5))
        self.topology.start(instance)

    async def stop(self):
        instance = self.anyone()
        self.topology.pause(instance, True)
        self.counts["stopped"] += 1
        await asyncio.sleep(self.random.uniform(0.2, 3))
        if instance.is_stopped:
            self.topology.pause(instance, False)

    async def cut(self):
        site = self.random.choice([site for site in (1, 2, 3) if site not in self.down] or [1])
        if site in self.down:
            return
        self.down.add(site)
        ip("link", "set", f"to{site}", "down")
        self.counts["cut off"] += 1
        await asyncio.sleep(self.random.uniform(0.3, 2.5))
        ip("link", "set", f"to{site}", "up")
        self.down.discard(site)


async def until_serving(instances):
    for instance in instances:
        deadline = time.monotonic() + 30
        while True:
            try:
                _, writer = await asyncio.open_connection(instance.address, instance.port)
                writer.close()
                break
            except OSError:
                if time.monotonic() > deadline or instance.process.poll() is not None:
                    raise RuntimeError(f"{instance.name} does not serve")
                await asyncio.sleep(0.05)


async def play(topology, seconds, seed):
    instances = topology.instances
    for instance in instances.values():
        topology.start(instance)
    await until_serving(instances.values())

    def places(*names):
        return [instances[name] for name in names]

    subscribers = [
        Subscriber("one behind the relays", places("h1", "h2")),
        Subscriber("another", places("h2", "h1")),
        Subscriber("one at the end", places("e")),
        Subscriber("one at the mesh", places("m2", "m3", "m1")),
        Reader("one over SSE", instances["h1"]),
    ]
    acknowledged = {}
    tasks = [asyncio.create_task(subscriber.run()) for subscriber in subscribers]
    await asyncio.sleep(1)
    is_publishing = True
    publishers = [Publisher(instance, acknowledged) for instance in instances.values() if instance.rate]
    publishing = [asyncio.create_task(publisher.run(lambda: is_publishing)) for publisher in publishers]
    chaos = Chaos(topology, seed)
    begin = time.monotonic()
    await chaos.run(begin + seconds)
    took = time.monotonic() - begin
    published = sum(acknowledged.values())
    # Everything is healed; what comes now must get to everyone.
    await asyncio.sleep(min(10, seconds / 4))
    is_publishing = False
    await asyncio.wait(publishing, timeout=10)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(time.monotonic() - s.last_event < 3 for s in subscribers):
        await asyncio.sleep(0.2)
    failed = [task.exception() for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    if failed:
        raise RuntimeError(f"a subscriber has failed: {failed[0]!r}")
    return subscribers, acknowledged, chaos, published / took


def reach(topology):
    """Whose events are for whom."""
    mesh = ["m1", "m2", "m3"]
    relays = ["p1", "p2"]
    return {
        "one behind the relays": relays,
        "another": relays,
        "one at the end": relays + mesh,
        "one at the mesh": mesh,
        "one over SSE": relays,
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    arguments = parser.parse_args()
    has_netem = make_network()
    with tempfile.TemporaryDirectory() as logs:
        topology = Topology(arguments.binary, logs)
        try:
            subscribers, acknowledged, chaos, rate = asyncio.run(play(topology, arguments.seconds, arguments.seed))
        except Exception as error:
            for name in topology.instances:
                path = os.path.join(logs, name)
                if os.path.exists(path):
                    with open(path, encoding="utf-8", errors="replace") as log:
                        print(f"{name}: " + "".join(log.readlines()[-6:]), file=sys.stderr)
            print(f"chaos: {error!r}", file=sys.stderr)
            sys.exit(2)
        finally:
            for instance in topology.instances.values():
                if instance.process:
                    topology.kill(instance)
    sys.exit(report(topology, subscribers, acknowledged, chaos, rate, has_netem, arguments))


def report(topology, subscribers, acknowledged, chaos, rate, has_netem, arguments):
    faults = ", ".join(f"{count} {what}" for what, count in chaos.counts.items())
    print(f"chaos: ten instances in three namespaces for {arguments.seconds:.0f} s, seed {arguments.seed}: {faults}; {topology.starts} starts")
    print("chaos: " + ("delay of 3 ms and loss of 0.1% on each way into a namespace" if has_netem else "no delay and no loss: this kernel has no netem"))
    print("chaos: a mesh of three by --peer" if topology.has_peers else "chaos: a ring of three by --consume: this wsevent has no --peer")
    print(f"chaos: {sum(acknowledged.values())} events acknowledged, {rate:.0f} a second, of {len(acknowledged)} origins")
    columns = ("delivered", "repeated", "missing", "told", "gaps", "by_number", "covered", "connections")
    for subscriber in subscribers:
        figures = ", ".join(f"{column.replace('_', ' ')} {getattr(subscriber, column)}" for column in columns)
        print(f"  {subscriber.name}: {figures}")
    bad = 0
    late = 0
    for subscriber in subscribers:
        for complaint in subscriber.complaints:
            print(f"  {complaint}")
        bad += subscriber.repeated + subscriber.missing
        for name in reach(topology)[subscriber.name]:
            origin = getattr(topology.instances[name], "origin", None)
            short = acknowledged.get(origin, 0) - subscriber.have.get(origin, 0)
            if short > 0:
                late += short
                print(f"  {subscriber.name}: {short} of the last events of {name} have not come, though all is healed")
    most = {}
    for subscriber in subscribers:
        for origin, seq in subscriber.have.items():
            most[origin] = max(most.get(origin, 0), seq)
    died = sum(max(0, seq - most.get(origin, 0)) for origin, seq in acknowledged.items())
    print(f"chaos: {died} acknowledged events died with their instance before any hop had them")
    total = {column: sum(getattr(subscriber, column) for subscriber in subscribers) for column in columns}
    print(
        f"chaos: delivered {total['delivered']}, repeated {total['repeated']}, missing {total['missing'] + late}, "
        f"told gaps {total['gaps']} of {total['told']} events"
    )
    if bad or late or not total["delivered"]:
        print("chaos: FAILED")
        return 1
    print("chaos: passed")
    return 0


if __name__ == "__main__":
    main()
