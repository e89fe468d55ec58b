#!/usr/bin/env python3
"""Writes frames.jsonl: compressed contents made by the libraries of the ancestor (zstandard and lz4 from PyPI).

Each line: {"codec", "note", "plain": [text, repetitions], "stored": hex}.
"""
import json
import sys

import lz4.frame
import zstandard

table = open(sys.argv[1] if len(sys.argv) > 1 else "frames.jsonl", "w")


def row(codec, note, plain, stored):
    text, count = plain
    table.write(json.dumps({"codec": codec, "note": note, "plain": [text, count], "stored": stored.hex()}) + "\n")


CONTENTS = [("", 0), ("a", 1), ("Hello, archive. ", 4), ("0123456789abcdef", 4096), ("0123456789abcdef", 4097), ("x", 300_000)]

for text, count in CONTENTS:
    content = text.encode() * count
    for level in (3, 5, 9):
        row("zstd", f"level {level}", (text, count), zstandard.ZstdCompressor(level=level).compress(content))
    bare = zstandard.ZstdCompressor(write_content_size=False, write_checksum=True)
    row("zstd", "no content size, checksum", (text, count), bare.compress(content))
    wide = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    stream = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    row("zstd", "streamed, window of 128 MiB", (text, count), stream.compress(content) + stream.flush())
    row("lz4", "default", (text, count), lz4.frame.compress(content))
    row("lz4", "level 9", (text, count), lz4.frame.compress(content, compression_level=9))
    row("lz4", "checksums, blocks of 256 KiB", (text, count), lz4.frame.compress(
        content, content_checksum=True, block_checksum=True, store_size=False, block_size=lz4.frame.BLOCKSIZE_MAX256KB,
        block_linked=False))
