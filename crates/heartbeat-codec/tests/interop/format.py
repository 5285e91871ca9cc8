"""Checks the vectors of docs/FORMAT.md with an implementation that was written from that page alone.

usage: format.py FORMAT.md

Prints how many lines of each block hold. Needs nothing but Python's own library.
"""

import hashlib
import hmac
import json
import sys

M32, M64 = (1 << 32) - 1, (1 << 64) - 1


def signed(value, bits):
    return value - (1 << bits) if value >> (bits - 1) & 1 else value


def le(value, size):
    return value.to_bytes(size, "little")


def raw(text):
    out = b""
    for word in text.split():
        if word != "-":
            byte, _, times = word.partition("*")
            out += bytes([int(byte, 16)]) * int(times or 1)
    return out


def optional(text):
    return None if text == "-" else int(text)


def byte_of(load):
    return 255 if load is None else load


def load_of(byte):
    assert byte <= 100 or byte == 255, byte
    return None if byte == 255 else byte


def number(value):
    out = []
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + [value])


def unfold(folded):
    return folded >> 1 if folded & 1 == 0 else -(folded >> 1) - 1


class State:
    """What both sides know of a rhythm."""

    def __init__(self, stamp, interval_ms, load):
        self.last, self.load = stamp & M32, load
        self.interval = interval_ms << 8
        # Each guess: next, period, error.
        self.grid = [self.interval, self.interval, 0]
        self.sleep = [self.interval, self.interval, 0]

    def ahead(self):
        guess = self.grid if self.grid[2] <= self.sleep[2] else self.sleep
        return (guess[0] + 128) >> 8

    def predicted(self):
        return (self.last + self.ahead()) & M32

    def learn(self, stamp, off, load):
        distance = ((stamp - self.last) & M32) << 8
        self.last, self.load = stamp & M32, load
        if abs(off) > 1559:
            self.grid[0] = self.grid[1]
            return
        low = self.interval - (self.interval >> 1)
        high = self.interval + (self.interval >> 1)
        for guess, shift in ((self.grid, 8), (self.sleep, 4)):
            error = max(-(1 << 20), min(1 << 20, distance - guess[0]))
            guess[2] += (abs(error) - guess[2]) >> 4
            guess[1] = max(low, min(high, guess[1] + (error >> shift)))
            if guess is self.grid:
                guess[0] = guess[1] - (error - (error >> 3))
            else:
                guess[0] = guess[1]


def change_of(before, now):
    if before is None or now is None:
        return 0 if before == now else None
    return now - before


def delta(state, stamp, load, interval_ms):
    """The bytes of a delta beat, and the state after it."""
    if state is not None:
        off = signed((stamp - state.predicted()) & M32, 32)
        change = change_of(state.load, load)
        wire = None
        for size, reach, most in ((1, 11, 2), (2, 115, 5), (3, 1559, 10)):
            if change is not None and abs(off) <= reach and abs(change) <= most:
                symbol = (off + reach) * (2 * most + 1) + change + most
                wire = {
                    1: lambda: bytes([0x80 + symbol]),
                    2: lambda: bytes([0xF3 + (symbol >> 8), symbol & 0xFF]),
                    3: lambda: b"\xfd" + le(symbol, 2),
                }[size]()
                break
        if wire is None and abs(off) <= 82239:
            symbol = (off + 82239) * 102 + (101 if load is None else load)
            wire = b"\xfe" + le(symbol, 3)
        if wire is not None:
            state.learn(stamp, off, load)
            return wire, state
    wire = b"\xff" + le(stamp, 4) + le(interval_ms, 4) + bytes([byte_of(load)]) + b"\xff\xff"
    return wire, State(stamp, interval_ms, load)


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        assert self.at + count <= len(self.data)
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self):
        return self.take(1)[0]

    def number(self):
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                assert byte or shift == 7
                return value

    def signed(self):
        return unfold(self.number())

    def part(self):
        head = self.number()
        assert head & 1 == 0, "a small part is not packed"
        return Reader(self.take(head >> 1))

    def places(self, count):
        out, after = [], 0
        for _ in range(count):
            out.append(after + self.number())
            after = out[-1] + 1
        return out

    def done(self):
        return self.at == len(self.data)


class Node:
    def __init__(self, node_id, timestamp, interval_ms, load):
        self.id, self.timestamp, self.interval_ms = node_id, timestamp, interval_ms
        self.state = State(timestamp, interval_ms, load)

    def predicted(self):
        ahead = (self.state.predicted() - self.timestamp) & M32
        return (self.timestamp + signed(ahead, 32)) & M64

    def expected(self, since, until):
        at = self.predicted()
        return 1 + (until - at) // self.interval_ms if since < at <= until else 0


class Batches:
    def __init__(self):
        self.nodes, self.horizon, self.sequence = [], 0, 0

    def read(self, wire):
        whole = Reader(wire)
        assert whole.byte() == 1
        body = Reader(whole.take(whole.number()))
        assert whole.done()
        sequence = body.number()
        if sequence == 0:
            self.nodes, self.horizon = [], 0
        else:
            assert sequence == self.sequence
        self.sequence = sequence + 1
        since = self.horizon
        self.horizon = (since + body.signed()) & M64
        beats, out = body.number(), []
        changes = body.part()
        leaving = changes.places(changes.number())
        self.nodes = [node for at, node in enumerate(self.nodes) if at not in leaving]
        node_id = timestamp = 0
        for _ in range(changes.number()):
            node_id = (node_id + changes.signed()) & M64
            timestamp = (timestamp + changes.signed()) & M64
            interval_ms, load = changes.number(), load_of(changes.byte())
            self.nodes.append(Node(node_id, timestamp, interval_ms, load))
            out.append((node_id, timestamp, load))
        places = changes.places(changes.number())
        surprises = {place: changes.signed() for place in places}
        assert changes.done()
        bits, escapes, symbols = body.byte(), body.part(), body.part()
        low = int.from_bytes(body.data[body.at :], "little")
        for place, node in enumerate(self.nodes):
            for _ in range(node.expected(since, self.horizon) + surprises.get(place, 0)):
                symbol = symbols.byte()
                if symbol == 255:
                    off, load = escapes.signed(), load_of(escapes.byte())
                else:
                    steps, change = unfold(symbol // 5), unfold(symbol % 5)
                    off = (steps << bits) + (low & (1 << bits) - 1) - ((1 << bits) >> 1)
                    low >>= bits
                    before = node.state.load
                    load = None if before is None else before + change
                    assert before is not None or change == 0
                node.timestamp = (node.predicted() + off) & M64
                node.state.learn(node.timestamp & M32, off, load)
                out.append((node.id, node.timestamp, load))
        assert escapes.done() and symbols.done() and low == 0 and len(out) == beats
        return out


def tag(key, message):
    return hmac.new(key, message, hashlib.sha256).digest()[:8]


def derived(secret):
    return hmac.new(secret, b"heartbeat-codec datagram 1", hashlib.sha256).digest()


def beat_body(stamp, load, rtt):
    return le(int(stamp), 4) + bytes([byte_of(optional(load))]) + le(0xFFFF if rtt == "-" else int(rtt), 2)


def datagram(left, kind, key):
    peer, sequence, *body = left.split()
    message = bytes([kind]) + le(int(peer), 4) + le(int(sequence), 4)
    message += beat_body(*body) if kind == 0xB1 else le(int(body[0]), 4)
    return message + tag(key, message)


def capability(left):
    offer, supported = (byte & 0x1F | 1 for byte in raw(left))
    answer = offer & supported
    return "%02x %s" % (answer, "delta" if answer & 4 else "fixed" if answer & 2 else "framed")


def fixed(left):
    stamp, load = left.split()
    first = 0xFF if load == "-" else 0x80 + int(load)
    return bytes([first]) + le(int(stamp), 4)


def protobuf(left):
    timestamp, node_id, load = left.split()
    out = b""
    for field, value in ((1, int(timestamp)), (2, int(node_id))):
        if value:
            out += number(field << 3) + number(value)
    return out if load == "-" else out + number(3 << 3) + number(int(load))


def as_json(left):
    timestamp, node_id, load = left.split()
    beat = {"timestamp_ms": int(timestamp), "node_id": int(node_id)}
    if load != "-":
        beat["load_percent"] = int(load)
    return json.dumps(beat, separators=(",", ":"))


def frame(left):
    kind, body = left.split(" ", 1)
    return bytes([int(kind, 16)]) + number(len(raw(body))) + raw(body)


def main(path):
    blocks, name = {}, None
    for line in open(path, encoding="utf-8"):
        line = line.rstrip("\n")
        if line.startswith("```"):
            name = line[3:] if name is None else None
        elif name:
            blocks.setdefault(name, []).append(line)
    blocks = {name: [tuple(line.split(" = ", 1)) for line in lines] for name, lines in blocks.items()}
    key = derived(b"secret")
    simple = {
        "frame": frame,
        "beat": lambda left: beat_body(*left.split()),
        "beat-ack": lambda left: le(int(left), 4),
        "fixed": fixed,
        "key": lambda left: derived(raw(left)),
        "datagram": lambda left: datagram(left, 0xB1, key),
        "datagram-ack": lambda left: datagram(left, 0xB2, key),
        "protobuf": protobuf,
    }
    for name, make in simple.items():
        for left, right in blocks[name]:
            assert make(left) == raw(right), (name, left, make(left).hex(" "))
    for name, make in (("capability", capability), ("json", as_json)):
        for left, right in blocks[name]:
            assert make(left) == right, (name, left, make(left))
    for left, right in blocks["fixed-refused"]:
        assert (raw(left)[0] < 0x80) == (right == "not-a-beat")
    state = None
    for left, right in blocks["delta"]:
        stamp, load = left.split()
        wire, state = delta(state, int(stamp), optional(load), 1000)
        assert wire == raw(right), ("delta", left, wire.hex(" "))
    batches = Batches()
    for left, right in blocks["batch"]:
        horizon, *beats = left.split()
        beats = [tuple(map(optional, beat.split(":"))) for beat in beats]
        assert set(batches.read(raw(right))) == set(beats), ("batch", left)
        assert batches.horizon == int(horizon)
    for name in list(simple) + ["capability", "json", "fixed-refused", "delta", "batch"]:
        print(name, len(blocks[name]))


if __name__ == "__main__":
    main(*sys.argv[1:])
