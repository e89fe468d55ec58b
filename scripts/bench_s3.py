"""scripts/bench s3: an archive in a bucket, against plain requests by the same client, and against its peers.

A real server (SeaweedFS) stands behind a proxy that holds every answer back and counts what passes. Server, proxy, program
and client share the processors of this machine. Every run has a mount of its own, made just before and taken down after. The
sides of a row take turns, and a ratio is the median of the ratios of the turns.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from bench_common import MIB, build, machine, need_packages, print_table, remove, spread, target_directory
from bench_mount import Bench, copy_seconds, quotients
from bench_mount_data import CREATED_AT, DAY
from bench_mount_peers import Mounted
from bench_s3_server import BUCKET, Proxy, Server, proxied, rclone, rclone_environment, rclone_mount, s3fs_mount, started, venv

FILE_BYTES = 12_288
LARGE_BYTES = MIB
LATENCIES_MS = (0, 20)
OTHER_DAY = "20240229"


@dataclass
class Side:
    """One side of a comparison: what its runs took, in the unit of the row, and how many requests they were."""

    name: str
    run: Callable[[int], float]
    figures: list[float] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)


class S3Bench(Bench):
    """The programs, the server with its data, and what was measured."""

    def __init__(self, arguments: argparse.Namespace, server: Server):
        # Not that of the local bench: its data sets are others.
        self.runs, self.server, self.files, self.copied = arguments.runs, server, arguments.files, arguments.copied
        self.few, self.operations = arguments.few, min(arguments.operations, arguments.files)
        self.programs = build(arguments.quick)
        self.root = target_directory() / "test-data" / "s3"
        self.root.mkdir(parents=True, exist_ok=True)
        self.results: dict = {"bench": "s3", "date": str(date.today()), "cores": os.cpu_count(), "runs": self.runs,
                              "load before": os.getloadavg()[0]}

    # The data.

    def source(self, count: int, size: int = FILE_BYTES) -> Path:
        """A directory with so many files of text that compresses to about a third, in a day."""
        name = f"files-{count}" if size == FILE_BYTES else f"files-{count}-{size}"
        finished, partial = self.root / name, self.root / f"{name}.partial"
        if not finished.exists():
            remove(partial)
            (partial / DAY).mkdir(parents=True)
            subprocess.run([self.programs / "mount-bench", "make", partial / DAY, "--files", str(count), "--size",
                            str(size)], check=True, stdout=subprocess.DEVNULL)
            partial.rename(finished)
        return finished / DAY

    def pack(self, count: int, endpoint: str, name: str, created_at: str = CREATED_AT, *more: str,
             size: int = FILE_BYTES) -> str:
        """Packs into a bucket and names the archive."""
        uri = f"s3://{BUCKET}/{name}"
        subprocess.run([self.programs / "des-pack", "--archive", uri, *self.reach(endpoint), "--spool",
                        self.root / "spool", "--input-dir", self.source(count, size), "--uid", "name", "--created-at",
                        created_at, *more], check=True, stdout=subprocess.DEVNULL)
        return uri

    def packed(self, count: int, size: int = FILE_BYTES) -> str:
        """An archive that is packed once, not through the proxy."""
        name = f"archive-{count}-{size}"
        if name not in self.results.setdefault("archives", []):
            self.pack(count, self.server.endpoint, name, size=size)
            self.results["archives"].append(name)
        return f"s3://{BUCKET}/{name}"

    def reach(self, endpoint: str) -> list[str]:
        return ["--endpoint", endpoint, "--credentials-file", str(self.server.credentials)]

    @contextlib.contextmanager
    def mounted(self, uri: str, endpoint: str) -> Iterator[Mounted]:
        options = f"endpoint={endpoint},credentials_file={self.server.credentials}"
        with self.daemon([self.programs / "desfs", uri, "{}", "--foreground", "--log", "warn", "-o", options]) as mounted:
            yield mounted

    # How a run is measured.

    def turn(self, part: str, row: str, proxy: Proxy, sides: list[Side], runs: int | None = None) -> None:
        """Measures each side once a turn, after one turn that does not count; the order alternates."""
        for run in range((runs or self.runs) + 1):
            for side in sides if run % 2 == 0 else reversed(sides):
                proxy.counts()
                figure = side.run(run)
                requests = proxy.counts()["requests"]
                if run > 0:
                    side.figures.append(figure)
                    side.requests.append(requests)
                print(f"    {row}, run {run}: {side.name} {figure:,.3f}, {requests} requests", file=sys.stderr)
        self.results.setdefault(part, {})[row] = {
            side.name: {"figures": side.figures, "requests": side.requests} for side in sides}

    # The parts.

    def cold(self) -> None:
        """Open and read of random files that nobody has cached, by one client, with the index cached."""
        uri, rows = self.packed(self.files), []
        stored = self.client("ranges", uri, *self.reach(self.server.endpoint), "--size", str(8 * MIB), "--whole")
        frame = stored["bytes"] // self.files
        for latency in LATENCIES_MS:
            operations = self.operations if latency else min(4 * self.operations, self.files)
            with proxied(self.programs, self.server, latency) as proxy:

                def read(run: int) -> float:
                    with self.mounted(uri, proxy.endpoint) as mounted:
                        next(iter(mounted.day.iterdir())).stat()
                        proxy.counts()
                        return self.client("read", mounted.day, "--files", self.files, "--size", FILE_BYTES, "--operations",
                                           operations, "--seed", run + 1)["p50_us"] / 1e3

                def plain(run: int) -> float:
                    return self.client("ranges", uri, *self.reach(proxy.endpoint), "--size", frame, "--operations",
                                       operations, "--seed", run + 1)["p50_us"] / 1e3

                ours, theirs = sides = [Side("desfs", read), Side("plain range GET", plain)]
                self.turn("s3 cold", f"{latency} ms", proxy, sides)
            each = statistics.median(ours.requests) / operations
            more = [mine - plain for mine, plain in zip(ours.figures, theirs.figures)]
            rows.append([f"{latency} ms", f"{operations:,}", spread(theirs.figures), spread(ours.figures),
                         spread(quotients(ours.figures, theirs.figures)), spread(more), f"{each:.3f}"])
        print_table([f"cold reads of {self.files:,} files of 12 KiB, latency added", "files read", "plain range GET, median ms",
                     "desfs, median ms", "ratio (goal 1.15 at 20 ms)", "ms more (goal 0.3 at 0 ms)",
                     "requests a file (goal 1.00)"], rows)

    def copy(self) -> None:
        """cp -r of a whole day, against the same stored bytes by 8 MiB at a time, and against a file system that does nothing."""
        rows: list[list[str]] = []
        for count, size in ((self.copied, FILE_BYTES), (max(1, self.copied * FILE_BYTES // LARGE_BYTES), LARGE_BYTES)):
            for latency in LATENCIES_MS:
                rows.append(self.copied_at(count, size, latency))
        print_table(["`cp -r` of", "latency added", "MB stored", "8 MiB GETs one after the other s", "do-nothing s", "desfs s",
                     "rate by GETs (goal 0.7)", "rate by do-nothing", "requests", "most (goal)"], rows)

    def copied_at(self, count: int, size: int, latency: int) -> list[str]:
        uri = self.packed(count, size)
        shards = self.client("ranges", uri, *self.reach(self.server.endpoint), "--size", str(8 * MIB), "--whole")
        with proxied(self.programs, self.server, latency) as proxy:

            def copied(_: int) -> float:
                with self.mounted(uri, proxy.endpoint) as mounted:
                    proxy.counts()
                    return copy_seconds(mounted.day)

            def nothing(_: int) -> float:
                with self.nothing(count, size).mount() as mounted:
                    return copy_seconds(mounted.day)

            def plain(_: int) -> float:
                return self.client("ranges", uri, *self.reach(proxy.endpoint), "--size", str(8 * MIB), "--whole")["seconds"]

            ours, idle, theirs = sides = [Side("desfs", copied), Side("do-nothing", nothing), Side("8 MiB GETs", plain)]
            self.turn("s3 copy", f"{size >> 10} KiB, {latency} ms", proxy, sides)
        most = shards["bytes"] / (8 * MIB) + 6 * shards["objects"] + 2
        return [f"{count:,} files of {size >> 10} KiB", f"{latency} ms", f"{shards['bytes'] / 1e6:.1f}", spread(theirs.figures),
                spread(idle.figures), spread(ours.figures), spread(quotients(theirs.figures, ours.figures)),
                spread(quotients(idle.figures, ours.figures)), f"{max(ours.requests)}", f"{most:.0f}"]

    def peers(self) -> None:
        """cp -r of a whole day of a few files, against file systems with one object a file, at 20 ms."""
        uri, source = self.packed(self.few), self.source(self.few)
        rclone(self.server.endpoint, "copy", source, f"des:{BUCKET}/objects-{self.few}/{DAY}", "--transfers", "32")
        prefix = f"objects-{self.few}"
        with proxied(self.programs, self.server, LATENCIES_MS[-1]) as proxy:

            def ours(_: int) -> float:
                with self.mounted(uri, proxy.endpoint) as mounted:
                    return copy_seconds(mounted.day)

            def s3fs(_: int) -> float:
                with self.daemon(s3fs_mount(self.server, proxy.endpoint, prefix)) as mounted:
                    return copy_seconds(mounted.day)

            def rclone_copy(_: int) -> float:
                command, environment = rclone_mount(proxy.endpoint, prefix)
                with self.daemon(["env", *(f"{name}={value}" for name, value in environment.items() if name.startswith("RCLONE")),
                                  *command]) as mounted:
                    return copy_seconds(mounted.day)

            sides = [Side("desfs", ours), Side("s3fs", s3fs), Side("rclone mount", rclone_copy)]
            self.turn("s3 peers", "cp -r", proxy, sides, min(2, self.runs))
        mine = statistics.median(sides[0].figures)
        rows = [[side.name, spread(side.figures), f"{statistics.median(side.figures) / mine:.0f}",
                 f"{statistics.median(side.requests):,.0f}"] for side in sides]
        print_table([f"`cp -r` of {self.few:,} files of 12 KiB at {LATENCIES_MS[-1]} ms", "s", "times as long as desfs (goal 100)",
                     "requests"], rows)

    def packing(self) -> None:
        """des-pack into a bucket, against tar and zstd piped to an upload in parts, at 20 ms."""
        source, total = self.source(self.copied), self.copied * FILE_BYTES
        creating: list[float] = []
        with proxied(self.programs, self.server, LATENCIES_MS[-1]) as proxy:

            def ours(run: int) -> float:
                # A file of another day creates the archive, which is done once in its life; as many groups as these files get.
                began = time.monotonic()
                self.pack(1, proxy.endpoint, f"packed-{run}", OTHER_DAY, "--n-bits", "4")
                creating.append(time.monotonic() - began)
                proxy.counts()
                began = time.monotonic()
                self.pack(self.copied, proxy.endpoint, f"packed-{run}")
                return total / 1e6 / (time.monotonic() - began)

            def theirs(run: int) -> float:
                began = time.monotonic()
                pipe = f"tar -C '{source}' -c . | zstd -3 -T0 -q | '{venv() / 'bin/rclone'}' rcat des:{BUCKET}/tar-{run}.tar.zst"
                subprocess.run(["bash", "-o", "pipefail", "-c", pipe], env=rclone_environment(proxy.endpoint), check=True)
                return total / 1e6 / (time.monotonic() - began)

            sides = [Side("des-pack", ours), Side("tar | zstd | upload", theirs)]
            self.turn("s3 pack", f"{self.copied:,} files", proxy, sides)
        packer, tar = sides
        print_table([f"packing {self.copied:,} files of 12 KiB at {LATENCIES_MS[-1]} ms", "tar, zstd -3, upload MB/s",
                     "des-pack MB/s", "rate ratio (goal 0.8)", "requests of des-pack", "requests of the upload",
                     "creating the archive before, s"],
                    [[f"{total / 1e6:.0f} MB", spread(tar.figures, 1), spread(packer.figures, 1),
                      spread(quotients(packer.figures, tar.figures)), f"{max(packer.requests):,}", f"{max(tar.requests):,}",
                      spread(creating, 1)]])


PARTS = ("cold", "copy", "peers", "packing")


def bench_s3(arguments: argparse.Namespace) -> None:
    if os.geteuid() != 0:
        sys.exit("this mounts file systems, so it needs root")
    need_packages("gcc", "libc6-dev", "mount")
    if arguments.quick:
        arguments.runs, arguments.files, arguments.operations, arguments.copied, arguments.few = 1, 1_000, 100, 2_000, 60
    scratch = target_directory() / "bench-scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    with started(scratch) as server:
        bench = S3Bench(arguments, server)
        print(f"\n`scripts/bench s3`, {date.today()}, {machine()}, load {os.getloadavg()[0]:.1f} before; "
              f"medians of {arguments.runs} alternating runs [least-most].")
        if arguments.quick:
            print("\nWith --quick: this shows that the bench works. Its figures mean nothing.")
        for part in arguments.part or PARTS:
            getattr(bench, part)()
        shutil.rmtree(bench.root / "spool", ignore_errors=True)
    bench.results["load after"] = os.getloadavg()[0]
    if arguments.json:
        known = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
        arguments.json.write_text(json.dumps(known | bench.results, indent=1) + "\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=int, default=5, help="runs that count, of each side (default 5)")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this one (default: all)")
    parser.add_argument("--files", type=int, default=20_000, help="files of the archive for cold reads (default 20,000)")
    parser.add_argument("--operations", type=int, default=500, help="files read in a run at 20 ms (default 500)")
    parser.add_argument("--copied", type=int, default=50_000, help="files copied and packed (default 50,000)")
    parser.add_argument("--few", type=int, default=2_000, help="files copied by the peers too (default 2,000)")
    parser.add_argument("--quick", action="store_true",
                        help="everything once, with few files and programs as the tests have them: to try the bench")
    parser.add_argument("--json", type=Path, help="where the figures are kept; parts not run stay as they are")
    parser.set_defaults(bench=bench_s3)
