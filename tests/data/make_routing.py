#!/usr/bin/env python3
"""Writes routing.jsonl: the bucket names of many uids, by the ancestor's rules and an interpreter of its kind.

Each line: [uid, the names for n_bits 4 to 16 with spaces between], or [uid, null] where the uid cannot be routed.
"""
import json
import random
import sys
import unicodedata
import uuid
import zlib

assert unicodedata.unidata_version == "14.0.0", "the ancestor's tables are those of Unicode 14"
random.seed(20240301)


def index(uid, n_bits):
    number = int(uid) if uid.isdigit() else zlib.crc32(uid.encode())
    return number % 2**n_bits


def names(uid):
    try:
        return " ".join(f"{index(uid, n_bits):0{max(1, n_bits // 4)}X}" for n_bits in range(4, 17))
    except ValueError:
        return None


digits = [chr(code) for code in range(sys.maxunicode + 1) if chr(code).isdigit()]
decimals = [digit for digit in digits if digit.isdecimal()]
numerics = [chr(code) for code in range(sys.maxunicode + 1) if chr(code).isnumeric() and not chr(code).isdigit()]

uids = dict.fromkeys(["", "0", "00", "007", "7", "-5", "+5", " 12", "12 ", "12\n", "1_000", "1.0", "1e3", "0x10", "True"])
uids.update(dict.fromkeys(str(2**power + step) for power in range(1, 130) for step in (-1, 0, 1)))
uids.update(dict.fromkeys(["1" * 4300, "0" * 4300, "9" * 4301, "\u00b2" * 4301, "1" * 4300 + "x"]))
uids.update(dict.fromkeys(["\u00e9", "e\u0301", "\u65e5\u672c\u8a9e", "a/b", "../x", "%2F", "nul\0", "\U0001f600"]))
# Every digit of every script, and what stands beside the runs of them.
uids.update(dict.fromkeys(digits))
for digit in digits:
    for neighbour in (ord(digit) - 1, ord(digit) + 1):
        if not 0xD800 <= neighbour < 0xE000:
            uids[chr(neighbour)] = None
uids.update(dict.fromkeys(random.sample(numerics, 60)))
for _ in range(200):
    uids["".join(random.choices(decimals, k=random.randint(2, 40)))] = None
    uids["".join(random.choices(digits, k=random.randint(2, 5)))] = None
    uids[str(random.getrandbits(random.randint(1, 200)))] = None
    uids[str(uuid.UUID(int=random.getrandbits(128), version=4))] = None
    uids[f"INV-{random.randint(2000, 2030)}-{random.randint(0, 999999):06}"] = None

with open(sys.argv[1] if len(sys.argv) > 1 else "routing.jsonl", "w") as table:
    for uid in uids:
        table.write(json.dumps([uid, names(uid)]) + "\n")
