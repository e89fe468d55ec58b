"""What the benches of scripts/bench share: where things lie, what is installed, how figures are printed."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MIB = 1024 * 1024


def machine() -> str:
    """What the figures depend on most: the cores, and how long an idle one of a virtual machine waits awake."""
    polling = Path("/sys/module/haltpoll/parameters/guest_halt_poll_ns")
    return f"{os.cpu_count()} cores" + (f", guest_halt_poll_ns={polling.read_text().strip()}" if polling.exists() else "")


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())


def target_directory() -> Path:
    metadata = subprocess.run(["cargo", "metadata", "--no-deps", "--format-version", "1"],
                              cwd=ROOT, check=True, capture_output=True)
    return Path(json.loads(metadata.stdout)["target_directory"])


def build(quick: bool = False) -> Path:
    """Builds the programs with optimisation and says where they are; in a hurry, as the tests have them."""
    # All of them for every bench: another selection would have other features and build the dependencies anew.
    command = ["cargo", "build", "--locked", "--quiet", "--bins", "--workspace"]
    subprocess.run(command if quick else [*command, "--release"], cwd=ROOT, check=True)
    return target_directory() / ("debug" if quick else "release")


def need_packages(*packages: str) -> None:
    quoted = " ".join(packages)
    subprocess.run(["bash", "-c", f". '{ROOT}/scripts/common.sh'; need_packages {quoted}"], check=True)


def timed(command: list, code: int = 0, out=subprocess.DEVNULL, sync_counts: bool = False) -> tuple[float, float, float]:
    """Seconds, those of a sync that follows where it counts, seconds of processor time, and the peak of memory in MiB."""
    os.sync()
    with tempfile.NamedTemporaryFile("r") as note:
        # What a process asks of its own child would count the memory of this one as well, which the child has until it runs
        # another program; so a small one asks.
        asked = ["time", "--quiet", "--output", note.name, "--format", "%U %S %M", *map(str, command)]
        began = time.monotonic()
        process = subprocess.run(asked, stdout=out, stderr=subprocess.PIPE)
        if sync_counts:
            os.sync()
        seconds = time.monotonic() - began
        if process.returncode != code:
            sys.exit(f"{command[0]} failed: {process.stderr.decode(errors='replace')}")
        user, system, peak_kib = map(float, note.read().split())
    return seconds, user + system, peak_kib / 1024


def spread(values: list[float], digits: int = 2) -> str:
    """The median, with the least and the most."""
    return f"{statistics.median(values):,.{digits}f} [{min(values):,.{digits}f}-{max(values):,.{digits}f}]"


def print_table(header: list[str], rows: list[list[str]]) -> None:
    print("\n| " + " | ".join(header) + " |")
    print("| --- |" + " ---: |" * (len(header) - 1))
    for row in rows:
        print("| " + " | ".join(row) + " |")
