"""Checks the protobuf vectors of docs/FORMAT.md with what protoc generates from proto/heartbeat.proto.

usage: protobuf.py FORMAT.md PROTO_DIR EMPTY_DIR

Needs Python's package `protobuf`, and protoc: the command, or the package `grpcio-tools`. Prints `SKIP: why` without them.
"""

import importlib
import shutil
import subprocess
import sys


def generated(proto_dir, out_dir):
    """The module that protoc makes, or why there is none."""
    try:
        import google.protobuf  # noqa: F401
    except ImportError:
        return None, "Python's package protobuf is missing"
    protoc = [shutil.which("protoc")]
    if protoc[0] is None:
        try:
            importlib.import_module("grpc_tools.protoc")
        except ImportError:
            return None, "protoc is missing"
        protoc = [sys.executable, "-m", "grpc_tools.protoc"]
    subprocess.run(protoc + ["-I" + proto_dir, "--python_out=" + out_dir, "heartbeat.proto"], check=True)
    sys.path.insert(0, out_dir)
    return importlib.import_module("heartbeat_pb2"), None


def main(path, proto_dir, out_dir):
    module, why_not = generated(proto_dir, out_dir)
    if module is None:
        print("SKIP:", why_not)
        return
    text = open(path, encoding="utf-8").read()
    lines = text.split("```protobuf\n")[1].split("```")[0].splitlines()
    for line in lines:
        left, right = line.split(" = ")
        timestamp_ms, node_id, load = left.split()
        beat = module.Heartbeat(timestamp_ms=int(timestamp_ms), node_id=int(node_id))
        if load != "-":
            beat.load_percent = int(load)
        wire = bytes.fromhex("" if right == "-" else right)
        assert beat.SerializeToString(deterministic=True) == wire, line
        assert module.Heartbeat.FromString(wire) == beat, line
    print("protobuf", len(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
