"""What the benches of scripts/bench share: where things lie, what is installed, how figures are printed."""

import json
import shutil
import statistics
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MIB = 1024 * 1024


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


def spread(values: list[float], digits: int = 2) -> str:
    """The median, with the least and the most."""
    return f"{statistics.median(values):,.{digits}f} [{min(values):,.{digits}f}-{max(values):,.{digits}f}]"


def print_table(header: list[str], rows: list[list[str]]) -> None:
    print("\n| " + " | ".join(header) + " |")
    print("| --- |" + " ---: |" * (len(header) - 1))
    for row in rows:
        print("| " + " | ".join(row) + " |")
