"""des-repack against packing its live files, and against copying the shard.

  scattered   30 % of the files deleted all over each shard: des-repack, against des-pack on the files that stay
  few         1 % of the files deleted, frames as they are (no dictionary): des-repack, against a plain copy of the shards

Both sides of each are run alternately in one run, on the same disk, each followed by a sync that counts.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench_common import build, machine, need_packages, print_table, remove, size, spread, target_directory, timed

REPACK = ["--threshold", "1", "--max-age", "1s"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=int, default=5, help="runs that count, of each side (default 5)")
    parser.add_argument("--files", type=int, default=40_000, help="files of 12 KiB (default 40,000)")
    parser.add_argument("--quick", action="store_true",
                        help="few files, one run, programs as the tests have them: shows that it works, nothing else")
    parser.set_defaults(bench=bench)


class Case:
    """An archive with deletions, kept as it is; each run works on a copy by hard links, since objects never change."""

    def __init__(self, name: str, percent: int, codec: str, rows: list[dict], scratch: Path, programs: Path):
        self.name, self.programs, self.scratch = name, programs, scratch
        step = 100 // percent
        self.dead = [row for number, row in enumerate(rows) if number % step == 0]
        self.live = [row for number, row in enumerate(rows) if number % step != 0]
        self.codec = codec
        self.template = scratch / f"{name}-template"
        self.live_manifest = scratch / f"{name}-live.json"
        self.live_manifest.write_text("\n".join(map(json.dumps, self.live)))
        all_manifest = scratch / f"{name}-all.json"
        all_manifest.write_text("\n".join(map(json.dumps, rows)))
        subprocess.run(self.pack(all_manifest, self.template), check=True, stdout=subprocess.DEVNULL)
        order = scratch / f"{name}-order.jsonl"
        order.write_text("\n".join(json.dumps({"uid": row["uid"], "created_at": row["created_at"]})
                                   for row in self.dead))
        subprocess.run([programs / "des-tombstones", "--archive", self.template, "add", "--from-file", order, "--yes"],
                       check=True, stdout=subprocess.DEVNULL)
        self.ours: list[float] = []
        self.theirs: list[float] = []
        self.peaks: list[float] = []

    def pack(self, manifest: Path, archive: Path) -> list[str]:
        return [str(self.programs / "des-pack"), "--archive", str(archive), "--input-json", str(manifest),
                "--codec", self.codec, "--n-bits", "1"]

    def repack(self) -> tuple[float, float, float]:
        archive = self.scratch / "archive"
        remove(archive)
        shutil.copytree(self.template, archive, copy_function=os.link)
        # The documents are replaced, not written into; the tombstones must be a second old.
        time.sleep(1.1)
        return timed([str(self.programs / "des-repack"), "--archive", str(archive), *REPACK], sync_counts=True)

    def other(self) -> tuple[float, float, float]:
        place = self.scratch / "other"
        remove(place)
        if self.name == "scattered":
            return timed(self.pack(self.live_manifest, place), sync_counts=True)
        return timed(["cp", "-r", str(self.template / "shards"), str(place)], sync_counts=True)

    def run(self, counts: bool) -> None:
        for ours in (True, False):
            seconds, _, peak = self.repack() if ours else self.other()
            if counts:
                (self.ours if ours else self.theirs).append(seconds)
                if ours:
                    self.peaks.append(peak)
            print(f"    {self.name}: {'des-repack' if ours else 'the other side'} {seconds:.2f} s", file=sys.stderr)

    def row(self) -> list[str]:
        live = sum(row["size_bytes"] for row in self.live)
        took, took_theirs = statistics.median(self.ours), statistics.median(self.theirs)
        return [self.name, f"{len(self.live) + len(self.dead):,}", f"{len(self.dead):,}", f"{live / 1e6:.0f}",
                f"{size(self.template / 'shards') / 1e6:.0f}", spread(self.ours), spread(self.theirs),
                f"{took_theirs / took:.2f}", f"{max(self.peaks):.0f}"]


def documents(place: Path, count: int) -> list[dict]:
    """Files of one day that compress by about half, and a row for each."""
    place.mkdir(parents=True)
    rows = []
    for number in range(count):
        noise = os.urandom(4_500).hex()
        text = f"<invoice number='{number}'>" + noise + "<line amount='1'/>" * 160
        path = place / f"{number:06d}"
        path.write_text(text)
        rows.append({"uid": f"INV-{number:06d}", "created_at": "2024-01-15T12:00:00Z", "size_bytes": len(text),
                     "source_path": str(path)})
    return rows


def bench(arguments: argparse.Namespace) -> None:
    need_packages("gcc", "libc6-dev", "time")
    programs = build(arguments.quick)
    if arguments.quick:
        arguments.files, arguments.runs = min(arguments.files, 4_000), 1
    scratch = target_directory() / "bench-scratch"
    remove(scratch)
    scratch.mkdir(parents=True)
    rows = documents(scratch / "source", arguments.files)
    cases = [Case("scattered", 33, "auto", rows, scratch, programs), Case("few", 1, "none", rows, scratch, programs)]
    for run in range(arguments.runs + 1):
        for case in cases:
            case.run(counts=run > 0)
    print(f"\n`scripts/bench repack`, {machine()}, medians of {arguments.runs} alternating runs [least-most].")
    print_table(["case", "files", "deleted", "live MB", "stored MB", "des-repack s", "other side s", "rate ratio",
                 "peak MiB"], [case.row() for case in cases])
    print("\nThe other side is des-pack on the live files (scattered), or cp of the shards (few). Goals: 1 and 0.5; "
          "peak below 256 MiB. des-repack proves its shards before, compares old and new, and reads back.")
    remove(scratch)
