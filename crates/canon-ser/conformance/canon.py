"""RFC 8785 over a file of documents, one JSON text a line, with the package `rfc8785`.

usage: canon.py DOCUMENTS [OUTPUT]

Prints the SHA-256 of all canonical forms, each followed by a newline; with OUTPUT, writes them there too.
"""

import hashlib
import json
import sys

import rfc8785

SAFE_MAX = 2**53 - 1


def number(text):
    """JSON has doubles only. The package refuses Python's integers beyond 2^53 - 1, so these arrive as doubles."""
    value = int(text)
    return value if -SAFE_MAX <= value <= SAFE_MAX else float(text)


def main():
    digest = hashlib.sha256()
    output = open(sys.argv[2], "wb") if len(sys.argv) > 2 else None
    with open(sys.argv[1], "rb") as documents:
        for line in documents:
            canonical = rfc8785.dumps(json.loads(line.decode("utf-8"), parse_int=number)) + b"\n"
            digest.update(canonical)
            if output:
                output.write(canonical)
    print(digest.hexdigest())


main()
