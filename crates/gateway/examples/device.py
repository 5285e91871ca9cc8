"""A device, written from docs/PROTOCOL.md with the standard library: python3 device.py HOST PORT ID"""
import os, random, select, socket, struct, sys, time

name, boot, token = sys.argv[3].encode(), os.urandom(16), b""
results = {}  # the memory of commands that the boot id names: status and answer by command id
def execute(payload):  # the effect; its answer is JSON
    return b'{"done_at":%d,"payload":%s}' % (time.time_ns(), payload)
def send(kind, body, before=b""):
    head, n = before + bytes([kind]), len(body)
    while n > 127:
        head, n = head + bytes([n & 127 | 128]), n >> 7
    sock.sendall(head + bytes([n]) + body)

def receive(data, seconds):  # the next frame, or None when the time is over
    while True:
        length, i, more = 0, 0, 128
        while more and i + 1 < len(data):
            i, more = i + 1, data[i + 1] & 128
            length |= (data[i] & 127) << 7 * (i - 1)
        if not more and len(data) > i + length:
            frame, data[:] = data[: i + 1 + length], data[i + 1 + length :]
            return frame[0], bytes(frame[i + 1 :])
        if not select.select([sock], [], [], max(0, seconds))[0]:
            return None, b""
        if not (chunk := sock.recv(65536)):
            raise ConnectionError("the gateway closed the connection")
        data += chunk

def session():
    global token, pause
    data, rtt_ms, patience, ms = bytearray(), 65535, 10, lambda: int(time.monotonic() * 1000) % 2**32
    heard, beat_at = time.monotonic(), time.monotonic() + patience
    send(1, struct.pack("<BI", bool(token), 0) + boot + token + bytes([len(name)]) + name, b"MST\x01")
    while (kind_body := receive(data, beat_at - time.monotonic()))[0] or time.monotonic() < heard + patience:
        (kind, body), heard = kind_body, time.monotonic() if kind_body[0] else heard
        if kind == 2:  # WELCOME
            token, (interval, grace) = body[:16], (n / 1000 for n in struct.unpack("<II", body[16:24]))
            patience, beat_at = 2 * interval + grace, time.monotonic() + interval * random.random()
            slot_ms = struct.unpack("<I", body[25:29].ljust(4, b"\xff"))[0]
            pause = slot_ms / 1000 if slot_ms < 2**32 - 1 else pause
        elif kind == 4:  # BEAT-ACK
            rtt_ms = min(65534, (ms() - struct.unpack("<I", body)[0]) % 2**32)
        elif kind == 6 and body[:16] not in results:  # COMMAND
            results[body[:16]] = b"\x02"  # interrupted, should the effect break off
            results[body[:16]] = b"\x00" + execute(body[20:])
        elif kind == 8:  # RESULT-ACK
            results.pop(body[:16], None)
        elif kind == 9 and body[0] == 2 or kind == 10 and body[0] not in (6, 9):  # replaced, refused
            sys.exit(f"the gateway sent this device away: {body}")
        elif kind in (9, 10):  # GOAWAY, ERROR: the slot is for the loss of a gateway that says nothing
            within_ms = struct.unpack("<I", body[1:5])[0] if kind == 9 else 0
            pause = random.random() * (within_ms / 1000 or 1)
        if kind in (None, 5):  # time to beat, PROBE
            send(3, struct.pack("<IBH", ms(), 255, rtt_ms))
            beat_at = time.monotonic() + interval
        for command in list(results) if kind in (None, 2) else [body[:16]] if kind == 6 else []:
            send(7, command + results[command])  # now, and again until it is acknowledged

while True:
    begun, pause = time.monotonic(), random.random()
    try:
        with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as sock:
            session()
    except OSError as error:
        print(error, file=sys.stderr)
    time.sleep(pause if time.monotonic() > begun + 5 else max(pause, random.random()))
