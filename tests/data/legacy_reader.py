#!/usr/bin/env python3
"""Reads a shard of version 1 or 2 as docs/format-legacy.md describes it; shares no code with the Rust reader.

Prints one JSON line for each entry: uid, codec, offset, length, plain length, metadata, SHA-256 of the content.
Contents in zstd or lz4 are decoded where the packages zstandard and lz4 are installed; their digest is null otherwise.
"""
import hashlib
import json
import pathlib
import struct
import sys

CODECS = {0: "none", 1: "zstd", 2: "lz4"}


def decode(codec, stored, plain_len):
    try:
        if codec == "zstd":
            import zstandard
            return zstandard.ZstdDecompressor().decompress(stored, max_output_size=plain_len)
        if codec == "lz4":
            import lz4.frame
            return lz4.frame.decompress(stored)
    except ImportError:
        return None
    return stored


class Fields:
    """Takes little-endian fields off some bytes."""

    def __init__(self, data):
        self.data, self.place = data, 0

    def take(self, form):
        values = struct.unpack_from("<" + form, self.data, self.place)
        self.place += struct.calcsize("<" + form)
        return values[0] if len(values) == 1 else values

    def text(self, length_form):
        length = self.take(length_form)
        assert self.place + length <= len(self.data), "an entry is cut off"
        return self.take(f"{length}s").decode("utf-8")


def read(path):
    data = path.read_bytes()
    magic, version, reserved = struct.unpack_from("<4sB3s", data)
    assert magic == b"DES2" and version in (1, 2) and reserved == bytes(3), "header"
    magic, index_len = struct.unpack_from("<4sQ", data, len(data) - 12)
    assert magic == b"DESI", "footer"
    index_at = len(data) - 12 - index_len
    assert index_at >= 8, "index"
    fields = Fields(data[index_at : len(data) - 12])
    for _ in range(fields.take("I")):
        entry = {"uid": fields.text("H")}
        if version == 2 and fields.take("B") & 1:
            entry["bigfile"], entry["plain_len"] = fields.text("H"), fields.take("Q")
            content = (path.parent / "_bigFiles" / entry["bigfile"]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == entry["bigfile"], "big file"
        else:
            offset, length, codec, stored_len, entry["plain_len"] = fields.take("QQBQQ")
            assert length == stored_len and 8 <= offset and offset + length <= index_at, "bounds"
            entry.update(codec=CODECS[codec], offset=offset, length=length)
            content = decode(entry["codec"], data[offset : offset + length], entry["plain_len"])
        meta = fields.text("I") if version == 2 else ""
        assert meta == "" or isinstance(json.loads(meta), dict), "metadata"
        assert content is None or len(content) == entry["plain_len"], "length"
        entry["metadata"] = meta
        entry["sha256"] = content if content is None else hashlib.sha256(content).hexdigest()
        yield entry
    assert fields.place == len(fields.data), "bytes left over"


for name in sys.argv[1:]:
    for found in read(pathlib.Path(name)):
        print(json.dumps(found))
