#!/usr/bin/env python3
"""Writes hpke.json: secrets that pyca/cryptography (50 or later) wrapped with HPKE base mode."""

import json
import sys

from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def raw(key):
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def shake_split(seed):
    """X-Wing's expansion of a 32-byte seed: 64 bytes for ML-KEM-768, 32 for X25519."""
    import hashlib

    out = hashlib.shake_256(seed).digest(96)
    return out[:64], out[64:]


rows = []
for n, info in enumerate((b"", b"one session")):
    seed, plaintext = bytes(range(n, n + 32)), bytes([0x40 + n] * 32)
    key = x25519.X25519PrivateKey.from_private_bytes(seed)
    pq, classical = shake_split(seed)
    pq = mlkem.MLKEM768PrivateKey.from_seed_bytes(pq)
    classical = x25519.X25519PrivateKey.from_private_bytes(classical)
    hybrid = MLKEM768X25519PrivateKey(pq, classical)
    for kem, number, secret, public in (
        (KEM.X25519, 0x0020, key, raw(key.public_key())),
        (KEM.MLKEM768_X25519, 0x647A, hybrid, raw(pq.public_key()) + raw(classical.public_key())),
    ):
        suite = Suite(kem, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
        out = suite.encrypt(plaintext, secret.public_key(), info)
        enc = 32 if number == 0x0020 else 1120
        rows.append(
            {
                "kem": number,
                "secret": seed.hex(),
                "public": public.hex(),
                "info": info.hex(),
                "plaintext": plaintext.hex(),
                "enc": out[:enc].hex(),
                "ct": out[enc:].hex(),
            }
        )
json.dump(rows, sys.stdout, indent=1)
print()
