#!/usr/bin/env python3
"""Writes floe.json: what FLOE's specification (c2sp.org/FLOE) makes of given bytes.

Written from the specification's pseudocode, and sharing nothing with the Rust but that text.
Needs `cryptography`. Key: 32 times 0x01. Plaintext: byte i is i mod 251. Random bytes: a counter.
"""

import hashlib
import hmac
import json
import struct
import sys

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY = bytes([1] * 32)
AAD = b"This is AAD"
ROTATION = 20


def kdf(prk, info, length):
    out, block, n = b"", b"", 1
    while len(out) < length:
        block = hmac.new(prk, block + info + bytes([n]), hashlib.sha384).digest()
        out, n = out + block, n + 1
    return out[:length]


class Counter:
    def __init__(self):
        self.at = 0

    def take(self, n):
        out = bytes((self.at + i) % 256 for i in range(n))
        self.at += n
        return out


def seal(segment, first, plaintext):
    rnd = Counter()
    params = bytes([0, 0]) + struct.pack(">II", segment, 32)
    iv = rnd.take(32)
    floe_kdf = lambda key, purpose, n: kdf(key, params + iv + purpose + AAD, n)
    header = params + iv + floe_kdf(KEY, b"HEADER_TAG:", 32)
    message_key = floe_kdf(KEY, b"MESSAGE_KEY:", 48)
    out = bytearray(header)
    room = segment - 32
    parts = [plaintext[i : i + room] for i in range(0, len(plaintext), room)] or [b""]
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        position = first + i
        masked = position >> ROTATION << ROTATION
        key = floe_kdf(message_key, b"DEK:" + struct.pack(">Q", masked), 32)
        nonce = rnd.take(12)
        body = AESGCM(key).encrypt(nonce, part, struct.pack(">Q", position) + bytes([last]))
        mark = 4 + 12 + len(body) if last else 0xFFFFFFFF
        out += struct.pack(">I", mark) + nonce + body
    return header, bytes(out)


cases = []
for segment in (4096, 65536, 1048576):
    room = segment - 32
    for length in (0, 1, room - 1, room, room + 1, 2 * room + 5):
        cases.append((segment, 0, length))
for first in ((1 << 20) - 1, 1 << 20, (1 << 21) - 2):
    cases.append((4096, first, 3 * 4064 + 9))

rows = []
for segment, first, length in cases:
    header, out = seal(segment, first, bytes(i % 251 for i in range(length)))
    rows.append(
        {
            "segment": segment,
            "first_position": first,
            "plaintext_len": length,
            "header": header.hex(),
            "sha256": hashlib.sha256(out).hexdigest(),
        }
    )
json.dump(rows, sys.stdout, indent=1)
print()
