"""scripts/bench mount: a local archive as mounted, against a file system that does nothing, ext4, and its peers.

Every run has a mount of its own, made just before and taken down after: the kernel has nothing of it in its caches, and
the daemon is new. The files that lie below (shards, images) are in the page cache for all sides. The sides of a row take
turns, and a ratio is the median of the ratios of the turns.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from bench_common import MIB, build, machine, need_packages, print_table, spread
from bench_mount_data import DAY, DataSets
from bench_mount_peers import PEERS, Mounted, need_peers

CLIENTS = (1, 2, 4, 8)


@dataclass
class Side:
    """One side of a comparison."""

    name: str
    mount: Callable[[], contextlib.AbstractContextManager[Mounted]]
    figures: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    peak_mib: float = 0.0


class Bench:
    """The programs, the data, and what was measured."""

    def __init__(self, arguments: argparse.Namespace):
        self.runs = arguments.runs
        self.programs = build(arguments.quick)
        self.data = DataSets(self.programs, arguments.small, arguments.many, arguments.large)
        self.operations = min(arguments.operations, arguments.small)
        self.results: dict = {"date": str(date.today()), "cores": os.cpu_count(), "runs": self.runs,
                              "load before": os.getloadavg()[0]}

    # What can be mounted.

    @contextlib.contextmanager
    def daemon(self, command: list[str | Path], below: str = DAY) -> Iterator[Mounted]:
        with tempfile.TemporaryDirectory(prefix="des-bench-") as mount_point:
            process = subprocess.Popen([*command, mount_point] if "{}" not in command else
                                       [mount_point if part == "{}" else part for part in command],
                                       stdout=subprocess.DEVNULL)
            try:
                while not os.path.ismount(mount_point):
                    if process.poll() is not None:
                        sys.exit(f"{command[0]} ended with {process.returncode}")
                    time.sleep(0.01)
                yield Mounted(Path(mount_point) / below, process.pid)
            finally:
                subprocess.run(["umount", mount_point], check=False)
                process.terminate()
                process.wait()

    def nothing(self, files: int, size: int) -> Side:
        command = [self.programs / "null-fuse", str(files), str(size)]
        return Side("do-nothing", lambda: self.daemon(command, "all"))

    def desfs(self, name: str, archive: Path) -> Side:
        return Side(name, lambda: self.daemon([self.programs / "desfs", archive, "{}", "--foreground"]))

    @staticmethod
    def ext4(day: Path) -> Side:
        return Side("ext4", lambda: contextlib.nullcontext(Mounted(day)))

    # How a run is measured.

    def client(self, *arguments: str | Path) -> dict:
        command = [self.programs / "mount-bench", *map(str, arguments)]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)

    def rate(self, day: Path, clients: int, seed: int, *more: str, operations: int | None = None) -> float:
        outcome = self.client("read", day, "--files", str(self.data.small), "--size", str(self.data.small_size),
                              "--operations", str(operations or self.operations), "--clients", str(clients),
                              "--seed", str(seed), *more)
        return outcome["operations"] / outcome["seconds"]

    def turns(self, sides: list[Side], figure: Callable[[Path, int], float], runs: int | None = None) -> None:
        """Measures each side once a turn, after one turn that does not count; the order alternates."""
        for run in range((runs or self.runs) + 1):
            for side in sides if run % 2 == 0 else reversed(sides):
                with side.mount() as mounted:
                    value = figure(mounted.day, run)
                    cpu_seconds = mounted.cpu_seconds()
                    side.peak_mib = max(side.peak_mib, mounted.peak_mib())
                if run > 0:
                    side.figures.append(value)
                    side.cpu_seconds.append(cpu_seconds)
                print(f"    run {run}: {side.name} {value:,.2f}, daemon {cpu_seconds:.2f} s", file=sys.stderr)

    def record(self, part: str, row: str, sides: list[Side]) -> None:
        figures = {side.name: {"figures": side.figures, "daemon cpu s": side.cpu_seconds, "peak MiB": round(side.peak_mib)}
                   for side in sides}
        self.results.setdefault(part, {})[row] = figures

    # The parts.

    def cold(self) -> None:
        """Open and read of random small files that nobody has cached."""
        stored, compressed = self.data.small_archive("none"), self.data.small_archive("zstd")
        rows = []
        for clients in CLIENTS:
            sides = [self.nothing(self.data.small, self.data.small_size), self.desfs("stored", stored),
                     self.desfs("compressed", compressed)]
            decode = Side("decode", lambda: contextlib.nullcontext(Mounted(compressed)))
            print(f"  cold, {clients} clients", file=sys.stderr)
            self.turns(sides, lambda day, run: self.rate(day, clients, run + 1))
            self.turns([decode], lambda archive, run: self.decode_rate(archive, clients, run + 1))
            self.record("cold", str(clients), [*sides, decode])
            nothing, stored_side, compressed_side = sides
            ratios = quotients(stored_side.figures, nothing.figures)
            times = [(1 / ours) / (1 / theirs + 1 / alone) for ours, theirs, alone in
                     zip(compressed_side.figures, nothing.figures, decode.figures)]
            rows.append([str(clients), *(spread(side.figures, 0) for side in (nothing, stored_side)), spread(ratios),
                         spread(compressed_side.figures, 0), spread(decode.figures, 0), spread(times),
                         " / ".join(f"{1e6 * min(side.cpu_seconds) / self.operations:.1f}" for side in sides),
                         f"{max(stored_side.peak_mib, compressed_side.peak_mib):.0f}"])
        print_table(["clients", "do-nothing /s", "stored /s", "ratio (goal 0.8)", "compressed /s",
                     "decode alone /s", "time ratio (goal 1.25)", "daemon us of CPU a file, least: do-nothing / stored "
                     "/ compressed", "daemon peak MiB"], rows)

    def decode_rate(self, archive: Path, clients: int, seed: int) -> float:
        outcome = self.client("decode", archive, "--date", DAY, "--files", str(self.data.small), "--operations",
                              str(self.operations), "--clients", str(clients), "--seed", str(seed))
        return outcome["operations"] / outcome["seconds"]

    def listing(self) -> None:
        """The whole of a directory with a million files."""
        archive, rows = self.data.many_archive(), []
        for name, command in LISTINGS.items():
            print(f"  {name}", file=sys.stderr)
            sides = [self.nothing(self.data.many, self.data.many_size), self.desfs("desfs", archive)]
            self.turns(sides, lambda day, _: seconds_of(command, day, self.data.many))
            self.record("listing", name, sides)
            nothing, ours = sides
            rows.append([f"`{name}`", spread(nothing.figures), spread(ours.figures),
                         spread(quotients(nothing.figures, ours.figures)), f"{ours.peak_mib:.0f}"])
        print_table([f"{self.data.many:,} files", "do-nothing s", "desfs s", "ratio (goal 0.8)", "daemon peak MiB"], rows)

    def warm(self) -> None:
        """What the kernel has cached."""
        archive, rows = self.data.small_archive("zstd"), []
        for clients in (1, 2):
            print(f"  warm open and read, {clients} clients", file=sys.stderr)
            sides = [self.ext4(self.data.small_files()), self.desfs("desfs", archive),
                     self.nothing(self.data.small, self.data.small_size)]
            self.turns(sides, lambda day, run: self.rate(day, clients, run + 1, "--warm"))
            self.record("warm", f"open+read, {clients} clients", sides)
            rows.append(warm_row(f"open+read, {clients} clients (goal 0.85)", sides))
        print("  warm pread", file=sys.stderr)
        sides = [self.ext4(self.data.large_file().parent), self.desfs("desfs", self.data.large_archive("zstd")),
                 self.nothing(1, self.data.large)]
        self.turns(sides, lambda day, run: self.pread_rate(next(day.iterdir()), run))
        self.record("warm", "pread", sides)
        rows.append(warm_row("pread of 4 KiB (goal 0.9)", sides))
        print_table(["warm", "ext4 /s", "desfs /s", "do-nothing /s", "desfs / ext4", "do-nothing / ext4"], rows)

    def pread_rate(self, file: Path, run: int) -> float:
        outcome = self.client("pread", file, "--operations", "500000", "--seed", str(run + 1))
        return outcome["operations"] / outcome["seconds"]

    def sequential(self) -> None:
        """One large file from end to end."""
        sides = [self.nothing(1, self.data.large), self.desfs("stored", self.data.large_archive("none")),
                 self.desfs("compressed", self.data.large_archive("zstd"))]
        print("  sequential", file=sys.stderr)
        self.turns(sides, lambda day, _: self.sequential_rate(next(day.iterdir())))
        self.record("sequential", "1 file", sides)
        nothing = sides[0]
        rows = [[side.name, spread(side.figures, 0), spread(quotients(side.figures, nothing.figures)),
                 f"{side.peak_mib:.0f}"] for side in sides]
        print_table([f"sequential, {self.data.large // MIB} MiB", "MB/s", "of do-nothing", "daemon peak MiB"], rows)

    def sequential_rate(self, file: Path) -> float:
        outcome = self.client("sequential", file)
        return outcome["bytes"] / 1e6 / outcome["seconds"]

    def copy(self) -> None:
        """cp -r of a whole day into memory."""
        sides = [self.nothing(self.data.copied, self.data.small_size),
                 self.desfs("stored", self.data.copied_archive("none")),
                 self.desfs("compressed", self.data.copied_archive("zstd"))]
        print("  cp -r", file=sys.stderr)
        self.turns(sides, lambda day, _: copy_seconds(day))
        self.record("copy", "cp -r", sides)
        nothing = sides[0]
        rows = [[side.name, spread(side.figures), spread(quotients(nothing.figures, side.figures)),
                 f"{side.peak_mib:.0f}"] for side in sides]
        print_table([f"`cp -r` of {self.data.copied:,} files", "s", "ratio to do-nothing", "daemon peak MiB"], rows)

    def peers(self) -> None:
        """Other file systems with the same files."""
        need_peers()
        sides = {"desfs, stored": (self.desfs("", self.data.small_archive("none")), self.desfs("", self.data.many_archive())),
                 "desfs, zstd": (self.desfs("", self.data.small_archive("zstd")), None)}
        for peer in PEERS:
            small = peer.image(self.data.images, self.data.small_files())
            many = peer.image(self.data.images, self.data.many_files()) if peer.lists_many else None
            sides[peer.name] = tuple(
                image and Side("", lambda image=image, peer=peer: peer.mounted(self, image)) for image in (small, many))
        rows = []
        for name, (small, many) in sides.items():
            slow = name == "ratarmount"
            operations = min(OPERATIONS_OF_SLOW.get(name, 20_000), self.operations)
            cells, runs = [name], min(3, self.runs) if slow else self.runs
            for clients in (1, 4):
                side = Side(f"{name}, {clients} clients", small.mount)
                self.turns([side], lambda day, run: self.rate(day, clients, run + 1, operations=operations), runs)
                self.record("peers", side.name, [side])
                cells.append(spread(side.figures, 0))
            for listing in LISTINGS:
                if many is None:
                    cells.append("-")
                    continue
                side = Side(f"{name}, {listing}", many.mount)
                files = self.data.many
                try:
                    self.turns([side], lambda day, _: seconds_of(LISTINGS[listing], day, files, LISTING_SECONDS_MAX),
                               1 if slow else min(3, self.runs))
                    cells.append(spread(side.figures))
                except subprocess.TimeoutExpired:
                    print(f"    {side.name}: given up after {LISTING_SECONDS_MAX} s", file=sys.stderr)
                    cells.append(f"more than {LISTING_SECONDS_MAX}")
                self.record("peers", side.name, [side])
            rows.append(cells)
        print_table(["same files", "cold, 1 client /s", "cold, 4 clients /s", *(f"`{name}` s" for name in LISTINGS)], rows)


# Those that decode 128 KiB for each file, or go through Python, would take minutes for more.
OPERATIONS_OF_SLOW = {"squashfs, zstd": 4_000, "squashfuse, zstd": 4_000, "ratarmount": 1_000}
# Some look each of a million names up by going through all that come before it.
LISTING_SECONDS_MAX = 40
LISTINGS = {
    "find": ["find", "{}", "-type", "f"],
    "find -size": ["find", "{}", "-size", "-1000k", "-type", "f"],
    "ls -lR": ["ls", "-lR", "{}"],
}
PARTS = ("cold", "listing", "warm", "sequential", "copy", "peers")


def quotients(numerators: list[float], denominators: list[float]) -> list[float]:
    return [numerator / denominator for numerator, denominator in zip(numerators, denominators)]


def warm_row(name: str, sides: list[Side]) -> list[str]:
    ext4, ours, nothing = sides
    return [name, *(spread(side.figures, 0) for side in sides), spread(quotients(ours.figures, ext4.figures)),
            spread(quotients(nothing.figures, ext4.figures))]


def seconds_of(command: list[str], day: Path, files: int, limit: float | None = None) -> float:
    """Runs a command that prints a line for each file, and checks that it does."""
    began = time.monotonic()
    run = subprocess.run([str(day) if part == "{}" else part for part in command], check=True, stdout=subprocess.PIPE,
                         timeout=limit)
    took = time.monotonic() - began
    lines = run.stdout.count(b"\n")
    if not files <= lines <= files + 3:
        sys.exit(f"{command}: {lines} lines for {files} files")
    return took


def copy_seconds(day: Path) -> float:
    with tempfile.TemporaryDirectory(prefix="des-bench-", dir="/dev/shm") as destination:
        began = time.monotonic()
        subprocess.run(["cp", "-r", day, destination], check=True)
        return time.monotonic() - began


def bench_mount(arguments: argparse.Namespace) -> None:
    if os.geteuid() != 0:
        sys.exit("this mounts file systems, so it needs root")
    need_packages("gcc", "libc6-dev", "findutils", "mount")
    if arguments.quick:
        arguments.runs, arguments.small, arguments.many, arguments.large = 1, 4_000, 20_000, 64 * MIB
        arguments.operations = 2_000
    bench = Bench(arguments)
    print(f"\n`scripts/bench mount`, {date.today()}, {machine()}, load {os.getloadavg()[0]:.1f} before; "
          f"medians of {arguments.runs} alternating runs [least-most].")
    if arguments.quick:
        print("\nWith --quick: this shows that the bench works. Its figures mean nothing.")
    for part in arguments.part or PARTS:
        getattr(bench, part)()
    bench.results["load after"] = os.getloadavg()[0]
    if arguments.json:
        known = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
        arguments.json.write_text(json.dumps(known | bench.results, indent=1) + "\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=int, default=5, help="runs that count, of each side (default 5)")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this one (default: all)")
    parser.add_argument("--small", type=int, default=200_000, help="how many small files (default 200,000)")
    parser.add_argument("--many", type=int, default=1_000_000, help="how many files to list (default 1,000,000)")
    parser.add_argument("--large", type=int, default=1 << 30, help="bytes of the large file (default 1 GiB)")
    parser.add_argument("--operations", type=int, default=60_000, help="files read in a run (default 60,000)")
    parser.add_argument("--quick", action="store_true",
                        help="everything once, with few files and programs as the tests have them: to try the bench")
    parser.add_argument("--json", type=Path, help="where the figures are kept; parts not run stay as they are")
    parser.set_defaults(bench=bench_mount)
