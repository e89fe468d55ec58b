"""scripts/bench migrate: des-migrate from a PostgreSQL table against des-pack from a manifest of the same files.

Both start with no archive; des-migrate also reads every file back and marks the days. The files and the server's pages
are in the page cache for both sides, and the sides take turns. Goal: at least 0.9 of the rate of des-pack, and a peak of
memory below 256 MiB.
"""

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_common import build, machine, need_packages, print_table, remove, spread, target_directory, timed

DAYS = 10
DIRECTORY_FILES = 1_000


class Server:
    """A PostgreSQL server of its own, which refuses to run as root."""

    def __init__(self, place: Path, port: int) -> None:
        versions = sorted(Path("/usr/lib/postgresql").iterdir(), key=lambda path: int(path.name))
        self.programs, self.data, self.port = versions[-1] / "bin", place / "data", port
        place.chmod(0o755)
        self.data.mkdir()
        shutil.chown(self.data, "postgres", "postgres")
        self.run("initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "-D", str(self.data))
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=on"
        self.run("pg_ctl", "-w", "-o", options, "-l", str(self.data / "log"), "-D", str(self.data), "start")
        self.url = f"postgres://postgres@127.0.0.1:{port}/postgres"

    def run(self, program: str, *arguments: str) -> None:
        subprocess.run(["runuser", "-u", "postgres", "--", self.programs / program, *arguments], check=True,
                       stdout=subprocess.DEVNULL, cwd="/")

    def sql(self, statements: str, stdin=None) -> str:
        psql = ["psql", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-d", self.url, "-c", statements]
        return subprocess.run(psql, check=True, stdin=stdin, capture_output=stdin is None, text=True).stdout or ""

    def stop(self) -> None:
        self.run("pg_ctl", "-m", "fast", "-D", str(self.data), "stop")


def make_files(place: Path, count: int) -> None:
    """Files of a median of 2 KiB, half of them text and half noise, with a manifest and a table to be copied in."""
    if (place / "rows.tsv").exists():
        return
    remove(place)
    (place / "files").mkdir(parents=True)
    chance = random.Random(7)
    noise = chance.randbytes(1 << 20)
    text = bytes(97 + byte % 8 for byte in noise)
    with open(place / "manifest.json", "w") as manifest, open(place / "rows.part", "w") as rows:
        for number in range(count):
            directory = place / "files" / f"{number // DIRECTORY_FILES:04}"
            if number % DIRECTORY_FILES == 0:
                directory.mkdir()
            length = min(int(chance.lognormvariate(7.6, 0.9)), 64 << 10)
            start = chance.randrange(len(noise) - length)
            path = directory / f"{number}.dat"
            path.write_bytes((text if number % 2 else noise)[start:start + length])
            uid, second = f"scan/{number:08}.xml", number // DAYS % 80_000
            created = (f"2024-03-{1 + number % DAYS:02}T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}Z")
            manifest.write(json.dumps({"uid": uid, "created_at": created, "size_bytes": length,
                                       "source_path": str(path)}) + "\n")
            rows.write(f"{uid}\t{created}\t{path}\t{length}\n")
    (place / "rows.part").rename(place / "rows.tsv")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=int, default=5, help="runs that count, of each side (default 5)")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the table (default 100,000)")
    parser.add_argument("--port", type=int, default=9090, help="a free port for the server (default 9090)")
    parser.set_defaults(bench=bench)


def bench(arguments: argparse.Namespace) -> None:
    need_packages("gcc", "libc6-dev", "postgresql", "time")
    programs = build()
    target = target_directory()
    data, scratch = target / "test-data" / f"migrate-{arguments.rows}", target / "bench-scratch"
    make_files(data, arguments.rows)
    remove(scratch)
    scratch.mkdir()
    with tempfile.TemporaryDirectory(prefix="des-bench-") as place:
        server = Server(Path(place), arguments.port)
        try:
            compare(server, programs, data, scratch, arguments)
        finally:
            server.stop()
    remove(scratch)


def compare(server: Server, programs: Path, data: Path, scratch: Path, arguments: argparse.Namespace) -> None:
    server.sql("CREATE TABLE files (uid text, created_at timestamptz, path text, size bigint)")
    with open(data / "rows.tsv") as rows:
        server.sql("COPY files FROM STDIN", stdin=rows)
    server.sql("CREATE INDEX ON files (created_at, uid)")
    server.sql("VACUUM ANALYZE files")
    archive, config = scratch / "archive", scratch / "migrate.toml"
    config.write_text(f"[database]\nurl = '{server.url}'\nlocation_column = 'path'\nsize_column = 'size'\n"
                      f"[sources]\nroots = ['{data}']\n[archive]\nuri = '{archive}'\n")
    migrate = [str(programs / "des-migrate"), "--config", str(config)]
    pack = [str(programs / "des-pack"), "--archive", str(archive), "--input-json", str(data / "manifest.json")]
    figures: dict[str, list[tuple[float, float, float]]] = {"des-pack": [], "des-migrate": []}
    for run in range(arguments.runs + 1):
        for name in list(figures) if run % 2 == 0 else list(figures)[::-1]:
            remove(archive)
            server.sql("DROP TABLE IF EXISTS des_archive_config, des_migration_day, des_migration_receipt, "
                       "des_migration_exception, des_cleanup")
            timed([*migrate, "init"])
            figure = timed(pack if name == "des-pack" else [*migrate, "--quiet"])
            if run > 0:
                figures[name].append(figure)
            print(f"    run {run}: {name} {figure[0]:.2f} s", file=sys.stderr)
    moved = server.sql("SELECT sum(packed) FROM des_migration_day").strip() or str(arguments.rows)
    if moved != str(arguments.rows):
        sys.exit(f"only {moved} of {arguments.rows} rows were moved")
    report(figures, arguments)


def report(figures: dict[str, list[tuple[float, float, float]]], arguments: argparse.Namespace) -> None:
    print(f"\n`scripts/bench migrate --rows {arguments.rows}`, {machine()}, medians of {arguments.runs} "
          "alternating runs [least-most].")
    rows = []
    for name, runs in figures.items():
        rates = [arguments.rows / seconds for seconds, _, _ in runs]
        rows.append([name, spread([run[0] for run in runs]), spread(rates, 0), spread([run[1] for run in runs]),
                     f"{max(run[2] for run in runs):.0f}"])
    print_table(["", "s", "files/s", "processor s", "peak MiB"], rows)
    ratios = [pack[0] / migrate[0] for pack, migrate in zip(figures["des-pack"], figures["des-migrate"])]
    print(f"\nRate of des-migrate as a part of that of des-pack: {statistics.median(ratios):.2f} (goal 0.9); "
          f"its peak of memory is to be below 256 MiB.")
