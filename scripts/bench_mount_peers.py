"""What is mounted, and other file systems that serve many small files from one image: squashfs, erofs, ratarmount."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench_common import need_packages, remove, target_directory
from bench_mount_data import DAY

RATARMOUNT = "ratarmount==1.3.0"


@dataclass
class Mounted:
    """A tree to be read, and the daemon behind it, if there is one."""

    day: Path
    pid: int | None = None

    def peak_mib(self) -> float:
        """The most memory that the daemon has had."""
        if self.pid is None:
            return 0.0
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))

    def cpu_seconds(self) -> float:
        """The processor time that the daemon has used."""
        if self.pid is None:
            return 0.0
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Peer:
    """How an image is made and mounted. `{}` stands for the directory with the day, `{image}` for the image."""

    name: str
    suffix: str
    make: list[str]
    kind: str | None = None
    daemon: list[str] | None = None
    lists_many: bool = True

    def image(self, root: Path, day: Path) -> Path:
        image = root / f"{day.parent.name}{self.suffix}"
        if not image.exists():
            print(f"  making {image.name}", file=sys.stderr)
            partial = root / f"partial{self.suffix}"
            remove(partial)
            places = {"{}": str(day.parent), "{image}": str(partial)}
            subprocess.run([places.get(part, part) for part in self.make], check=True, stdout=subprocess.DEVNULL)
            partial.rename(image)
        return image

    @contextlib.contextmanager
    def mounted(self, bench, image: Path) -> Iterator:
        if self.daemon:
            command = [str(venv() / "bin/ratarmount") if part == "ratarmount" else part for part in self.daemon]
            with bench.daemon([str(image) if part == "{image}" else part for part in command]) as mounted:
                yield mounted
            return
        with tempfile.TemporaryDirectory(prefix="des-bench-") as mount_point:
            subprocess.run(["mount", "-t", self.kind, "-o", "loop,ro", image, mount_point], check=True)
            try:
                yield Mounted(Path(mount_point) / DAY)
            finally:
                subprocess.run(["umount", mount_point], check=True)


# Its search for equal files goes by size and a checksum of 16 bits: among a million files of one size it finds no end.
SQUASH = ["mksquashfs", "{}", "{image}", "-no-progress", "-quiet", "-no-duplicates"]
ZSTD = ["-comp", "zstd", "-Xcompression-level", "3"]
STORED = ["-noI", "-noD", "-noF", "-noX"]
PEERS = [
    Peer("squashfs, zstd", ".zstd.squashfs", [*SQUASH, *ZSTD], kind="squashfs"),
    Peer("squashfs, stored", ".stored.squashfs", [*SQUASH, *STORED], kind="squashfs"),
    Peer("squashfuse, zstd", ".zstd.squashfs", [*SQUASH, *ZSTD], daemon=["squashfuse_ll", "-f", "{image}", "{}"]),
    Peer("squashfuse, stored", ".stored.squashfs", [*SQUASH, *STORED], daemon=["squashfuse_ll", "-f", "{image}", "{}"]),
    Peer("erofs, stored", ".erofs", ["mkfs.erofs", "{image}", "{}"], kind="erofs"),
    Peer("erofs, lz4", ".lz4.erofs", ["mkfs.erofs", "-zlz4", "{image}", "{}"], kind="erofs"),
    Peer("ratarmount", ".tar", ["tar", "-C", "{}", "-cf", "{image}", DAY], daemon=["ratarmount", "-f", "{image}", "{}"]),
]


def venv() -> Path:
    return target_directory() / "test-data" / "ratarmount-venv"


def need_peers() -> None:
    need_packages("squashfs-tools", "squashfuse", "erofs-utils", "python3-venv", "fuse3", "libfuse2")
    if not (venv() / "bin/ratarmount").exists():
        subprocess.run([sys.executable, "-m", "venv", venv()], check=True)
        subprocess.run([venv() / "bin/pip", "install", "--quiet", RATARMOUNT], check=True)
