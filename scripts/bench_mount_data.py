"""The data sets of scripts/bench mount: made once, kept below the target directory."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bench_common import remove

DAY = "20240301"
CREATED_AT = "20240301"


class DataSets:
    """Files of text that compresses to about a third, and archives of them."""

    small_size = 4_096
    many_size = 16

    def __init__(self, programs: Path, small: int, many: int, large: int):
        self.programs, self.small, self.many, self.large = programs, small, many, large
        self.copied = min(100_000, small)
        self.root = programs.parent / "test-data" / "mount"
        self.images = self.root / "images"
        self.images.mkdir(parents=True, exist_ok=True)

    def small_files(self) -> Path:
        return self.files(f"small-{self.small}", self.small, self.small_size)

    def small_archive(self, codec: str) -> Path:
        return self.archive(f"small-{self.small}-{codec}", self.small_files(), codec)

    def copied_archive(self, codec: str) -> Path:
        name = f"small-{self.copied}"
        return self.archive(f"{name}-{codec}", self.files(name, self.copied, self.small_size), codec)

    def many_files(self) -> Path:
        return self.files(f"many-{self.many}", self.many, self.many_size)

    def many_archive(self) -> Path:
        return self.archive(f"many-{self.many}-zstd", self.many_files(), "zstd")

    def large_file(self) -> Path:
        return self.files(f"large-{self.large}", 1, self.large) / "f0000000"

    def large_archive(self, codec: str) -> Path:
        return self.archive(f"large-{self.large}-{codec}", self.large_file().parent, codec)

    def files(self, name: str, count: int, size: int) -> Path:
        """A directory with a day below, as a mount shows it; the day."""
        def make(partial: Path) -> None:
            (partial / DAY).mkdir(parents=True)
            self.run("mount-bench", "make", partial / DAY, "--files", count, "--size", size)
        return self.once(name, make) / DAY

    def archive(self, name: str, day: Path, codec: str) -> Path:
        def make(partial: Path) -> None:
            self.run("des-pack", "--archive", partial, "--input-dir", day, "--uid", "name", "--created-at", CREATED_AT,
                     "--codec", codec)
        return self.once(f"{name}.archive", make)

    def once(self, name: str, make: Callable[[Path], None]) -> Path:
        finished, partial = self.root / name, self.root / f"{name}.partial"
        if not finished.exists():
            print(f"  making {name}", file=sys.stderr)
            remove(partial)
            make(partial)
            partial.rename(finished)
        return finished

    def run(self, program: str, *arguments: object) -> None:
        subprocess.run([self.programs / program, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)
