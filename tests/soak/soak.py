"""A producer, three hops and a proxy under subscribers that come and go, for as long as wanted: what grows, and what is lost.

    producer ──► first ──► middle ──► last ◄── proxy ◄── subscribers
                   ▲                                        (churned)
                   └───────────────── proxy ◄───────────────┘

Started by scripts/soak. Standard library only, and the subscribers of tests/chaos, which hold what they get against what is promised.
"""

import argparse
import asyncio
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "chaos"))
from run import HOLD, Subscriber, die_with_parent  # noqa: E402

PAGE = os.sysconf("SC_PAGE_SIZE")
# What counts as growth: so many bytes in the second half of a run, and such a part of what there was.
GROWTH = (8 << 20, 0.1)
# Descriptors that a process may have more at rest than it had: those of a link that is just being made anew.
SPARE = 4


class Process:
    """An instance, and what was seen of it."""

    def __init__(self, binary, name, logs, flags):
        self.binary, self.name, self.flags = binary, name, flags
        self.log = Path(logs) / name
        self.address, self.port = "127.0.0.1", 0
        self.starts = 0
        self.samples = []
        self.spawn()
        while not self.listens():
            time.sleep(0.01)

    def spawn(self):
        """On the port that it had before, if it had one. By the main thread: it would end with the thread that has started it."""
        where = f"{self.address}:{self.port}"
        words = [self.binary] + [flag.format(serve=where) for flag in self.flags]
        with open(self.log, "ab") as log:
            self.begin = log.tell()
            self.process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={"PATH": os.environ["PATH"]}, preexec_fn=die_with_parent
            )
        self.starts += 1
        self.deadline = time.monotonic() + HOLD

    def listens(self):
        """Whether it does so far; an error if it never will."""
        text = self.log.read_bytes()[self.begin :].decode("utf-8", "replace")
        found = re.search(r" listening address=127\.0\.0\.1:(\d+)", text)
        if found:
            self.port = int(found[1])
        elif self.process.poll() is not None or time.monotonic() > self.deadline:
            raise RuntimeError(f"{self.name} does not listen: {text[-500:]}")
        return bool(found)

    def url(self, scheme="ws"):
        path = "" if scheme == "http" else "/events"
        return f"{scheme}://{self.address}:{self.port}{path}"

    def files(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def look(self, seconds):
        """Notes how much memory it has, how many files, and how much it has worked."""
        pid = self.process.pid
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
        times = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        ticks = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
        self.samples.append((seconds, resident, self.files(), ticks))

    async def restart(self):
        self.process.kill()
        self.process.wait(HOLD)
        self.spawn()
        while not self.listens():
            await asyncio.sleep(0.01)

    def end(self):
        """Its exit status, after SIGTERM."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(HOLD)


class Churned(Subscriber):
    """One that leaves now and then, in one way or another, and comes back with what it has."""

    def __init__(self, name, places, draw):
        super().__init__(name, places)
        self.draw = draw
        self.is_leaving = True

    async def follow(self, place, reader, writer):
        if not self.is_leaving:
            return await super().follow(place, reader, writer)
        try:
            async with asyncio.timeout(self.draw.expovariate(1 / 8)):
                await super().follow(place, reader, writer)
        except TimeoutError:
            # Sometimes it stops reading first, and leaves while the server is writing to it.
            if self.draw.random() < 0.2:
                reader._transport.pause_reading()
                await asyncio.sleep(self.draw.uniform(0.5, 3))

    async def leave(self):
        self.task.cancel()
        await asyncio.wait([self.task])


class Nuisance:
    """Connections that ask for nothing, for nonsense, or for more than they take."""

    SAYS = [
        b"",
        b"GET / HT",
        b"\x16\x03\x01\x00\x05hello\r\n\r\n",
        b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc",
    ]

    def __init__(self, places, draw):
        self.places, self.draw, self.count = places, draw, 0

    async def run(self):
        while True:
            place = self.draw.choice(self.places)
            try:
                _, writer = await asyncio.open_connection(place.address, place.port)
                self.count += 1
                writer.write(self.draw.choice(self.SAYS))
                await asyncio.sleep(self.draw.uniform(0, 1.5))
                writer.transport.abort()
            except OSError:
                await asyncio.sleep(0.2)


async def make_faults(middle, pause, draw, counts, over):
    """The hop in the middle is killed, or stopped for a while: the others have to live with that, and are what is looked at."""
    while True:
        try:
            return await asyncio.wait_for(over.wait(), pause * draw.uniform(0.5, 1.5))
        except TimeoutError:
            pass
        if draw.random() < 0.5:
            counts["killed"] += 1
            await middle.restart()
        else:
            counts["stopped"] += 1
            middle.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(draw.uniform(0.2, 3))
            middle.process.send_signal(signal.SIGCONT)


async def look_at(processes, begin, every):
    while True:
        for process in processes:
            process.look(time.monotonic() - begin)
        await asyncio.sleep(every)


async def caught_up(subscribers):
    """All have the same, and it is new: false if that does not come about."""
    deadline = time.monotonic() + HOLD
    target = None
    while time.monotonic() < deadline:
        newest = {}
        for subscriber in subscribers:
            for origin, seq in subscriber.have.items():
                newest[origin] = max(newest.get(origin, 0), seq)
        target = target or {origin: seq + 1 for origin, seq in newest.items()}
        if target and all(subscriber.have.get(origin, 0) >= seq for subscriber in subscribers for origin, seq in target.items()):
            return True
        await asyncio.sleep(0.1)
    return False


async def at_rest(processes):
    """How many files each has while nobody is connected, once that no longer changes."""
    before, since = None, time.monotonic()
    deadline = time.monotonic() + HOLD
    while time.monotonic() < deadline:
        files = [process.files() for process in processes]
        if files != before:
            before, since = files, time.monotonic()
        if time.monotonic() - since > 2:
            break
        await asyncio.sleep(0.1)
    return before


async def soak(processes, proxy, arguments, counts):
    producer, first, middle, last = processes
    measured = [producer, first, last, proxy]
    draw = random.Random(arguments.seed)
    files_before = await at_rest(measured)
    subscribers = [Churned(f"subscriber {n}", [proxy], random.Random(draw.random())) for n in range(arguments.subscribers)]
    for subscriber in subscribers:
        subscriber.task = asyncio.create_task(subscriber.run())
    nuisance = Nuisance([first, last, proxy], draw)
    begin = time.monotonic()
    over = asyncio.Event()
    faults = asyncio.create_task(make_faults(middle, arguments.pause, draw, counts, over))
    others = [
        nuisance.run(),
        look_at(measured, begin, max(0.25, arguments.seconds / 2000)),
    ]
    others = [asyncio.create_task(other) for other in others]
    while time.monotonic() < begin + arguments.seconds:
        await asyncio.sleep(0.5)
        ended = [task for task in [faults, *others, *(s.task for s in subscribers)] if task.done()]
        if ended:
            raise RuntimeError(f"something has ended by itself: {ended[0].exception()!r}")
        for process in measured:
            if process.process.poll() is not None:
                raise RuntimeError(f"{process.name} has ended by itself, with {process.process.returncode}")
    for task in others:
        task.cancel()
    over.set()
    await asyncio.wait([faults, *others])
    for subscriber in subscribers:
        subscriber.is_leaving = False
    is_caught_up = await caught_up(subscribers)
    for subscriber in subscribers:
        await subscriber.leave()
    counts["nuisances"] = nuisance.count
    return subscribers, is_caught_up, list(zip(measured, files_before, await at_rest(measured)))


def slope(samples):
    """Bytes an hour, by least squares."""
    if len(samples) < 2:
        return 0.0
    mean_x = sum(at for at, *_ in samples) / len(samples)
    mean_y = sum(resident for _, resident, *_ in samples) / len(samples)
    above = sum((at - mean_x) * (resident - mean_y) for at, resident, *_ in samples)
    below = sum((at - mean_x) ** 2 for at, *_ in samples)
    return 3600 * above / below if below else 0.0


def grows(samples):
    """Whether the last eighth of the second half has more than its first by more than chance."""
    half = samples[len(samples) // 2 :]
    part = max(1, len(half) // 8)
    begin = sorted(resident for _, resident, *_ in half[:part])[part // 2]
    end = sorted(resident for _, resident, *_ in half[-part:])[part // 2]
    return end - begin > max(GROWTH[0], GROWTH[1] * begin)


def report(arguments, subscribers, is_caught_up, files, counts):
    wrong = []
    total = {}
    for column in ("delivered", "repeated", "missing", "told", "gaps", "connections"):
        total[column] = sum(getattr(subscriber, column) for subscriber in subscribers)
    faults = ", ".join(f"{count} {what}" for what, count in counts.items())
    print(f"soak: {arguments.seconds:.0f} s, {arguments.rate} events/s, {arguments.subscribers} subscribers that come and go, seed {arguments.seed}: {faults}")
    print("soak: " + ", ".join(f"{column} {count}" for column, count in total.items()))
    print(f"  {'':10} {'RSS MiB':>8} {'most':>8} {'MiB/h':>9} {'files':>6} {'at rest':>12} {'CPU s':>7}")
    for process, before, after in files:
        samples = process.samples
        settled = samples[len(samples) // 4 :]
        mib = 1 << 20
        print(
            f"  {process.name:10} {samples[-1][1] / mib:8.1f} {max(s[1] for s in samples) / mib:8.1f} {slope(settled) / mib:9.2f}"
            f" {samples[-1][2]:6} {before:5} -> {after:3} {samples[-1][3]:7.1f}"
        )
        if after > before + SPARE:
            wrong.append(f"{process.name} has {after} files at rest, and had {before}")
        # Of a short run the beginning is most: buffers, and the allocator's.
        if arguments.seconds >= 600 and grows(samples):
            wrong.append(f"the memory of {process.name} grows")
    for subscriber in subscribers:
        wrong += subscriber.complaints
    if total["repeated"] or total["missing"]:
        wrong.append("events came twice, or are missing untold")
    if not is_caught_up:
        wrong.append("not everybody got what was published when all was healed")
    if not total["delivered"]:
        wrong.append("nothing was delivered")
    return wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--subscribers", type=int, default=100)
    parser.add_argument("--rate", type=int, default=100)
    parser.add_argument("--pause", type=float, default=5)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    arguments = parser.parse_args()
    counts = {"killed": 0, "stopped": 0}
    with tempfile.TemporaryDirectory() as logs:
        processes = []

        def start(name, *flags):
            processes.append(Process(arguments.binary, name, logs, flags))
            return processes[-1]

        try:
            serve = ("--serve", "{serve}/events", "--ping-interval", "1s")
            producer = start("producer", *serve, "--produce-rate", str(arguments.rate), "--produce-size", "200")
            first = start("first", *serve, "--consume", producer.url())
            middle = start("middle", *serve, "--consume", first.url())
            last = start("last", *serve, "--consume", middle.url())
            upstreams = [word for hop in (first, last) for word in ("--upstream", hop.url("http"))]
            proxy = start("proxy", "proxy", "--serve-address", "{serve}", *upstreams)
            subscribers, is_caught_up, files = asyncio.run(soak(processes[:4], proxy, arguments, counts))
            wrong = report(arguments, subscribers, is_caught_up, files, counts)
            for process in processes:
                status = process.end()
                if status != 0:
                    wrong.append(f"{process.name} ends with {status} on SIGTERM")
        except Exception as error:
            wrong = [repr(error)]
        finally:
            for process in processes:
                if process.process.poll() is None:
                    process.process.kill()
                    process.process.wait(HOLD)
        for process in processes:
            text = process.log.read_text("utf-8", "replace")
            if "panicked" in text:
                wrong.append(f"{process.name} has panicked: " + text[text.index("panicked") - 100 :][:400])
            elif wrong:
                print(f"{process.name}: " + "\n".join(text.splitlines()[-5:]), file=sys.stderr)
    for what in wrong:
        print(f"soak: {what}")
    print("soak: " + ("FAILED" if wrong else "passed"))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
