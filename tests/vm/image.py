"""The disk that both virtual machines boot from: Debian 12 with its own kernel, made once.

Kept in `.build/vmtest/image` and made again when this file or the agent changes. It has what the
acceptance calls, and not fwd: that is installed by hand, as README.md says.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SUITE", "UNDERLAY", "Image", "image"]

HERE = Path(__file__).resolve().parent
SUITE = "bookworm"
UNDERLAY = {
    "node1": ("172.31.7.1", "52:54:00:1f:07:01"),
    "node2": ("172.31.7.2", "52:54:00:1f:07:02"),
}
"""Address and MAC of each NIC; not the addresses of the examples, which must be edited."""
PACKAGES = (
    "linux-image-cloud-amd64", "systemd", "systemd-sysv", "udev", "dbus", "python3", "iproute2",
    "iputils-ping", "curl", "nginx-light", "iperf3", "nftables", "procps", "kmod",
)  # fmt: skip
MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
    "e2scrub_reap.service", "fstrim.timer", "getty@tty1.service", "serial-getty@ttyS0.service",
    "modprobe@fuse.service", "systemd-logind.service", "nginx.service",
)  # fmt: skip
"""What would take processor time from the run; nginx runs in a pod."""
DISK_SIZE = "1500M"
INITRD_MODULES = "virtio_pci\nvirtio_blk\n"

AGENT_UNIT = """\
[Unit]
Description=Runs what the host of the virtual machine asks for
DefaultDependencies=no
After=systemd-udevd.service local-fs.target
Conflicts=shutdown.target
Before=shutdown.target
[Service]
ExecStart=/usr/bin/python3 -I /usr/local/lib/agent.py
Environment=HOME=/root LC_ALL=C.UTF-8
Restart=always
[Install]
WantedBy=sysinit.target
"""
NETWORK = """\
[Match]
MACAddress={mac}
[Network]
Address={address}/24
LinkLocalAddressing=no
"""


@dataclass(frozen=True)
class Image:
    """What qemu boots."""

    disk: Path
    kernel: Path
    initrd: Path


def image(folder: Path) -> Image:
    """Return the image in ``folder``, made anew when it is not what this file describes.

    Raises:
        OSError: it cannot be made; the text is the tool's.
    """
    made = Image(folder / "disk.ext4", folder / "vmlinuz", folder / "initrd")
    wanted = hashlib.sha256(
        Path(__file__).read_bytes() + (HERE / "agent.py").read_bytes()
    ).hexdigest()
    stamp = folder / "stamp"
    if stamp.exists() and stamp.read_text() == wanted:
        return made
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tree = folder / "tree"
    try:
        _fill(tree)
        for target, pattern in ((made.kernel, "vmlinuz-*"), (made.initrd, "initrd.img-*")):
            (found,) = (tree / "boot").glob(pattern)
            shutil.copyfile(found, target)
        _run("mke2fs", "-q", "-t", "ext4", "-d", tree, "-L", "root", made.disk, DISK_SIZE)
    finally:
        shutil.rmtree(tree, ignore_errors=True)
    stamp.write_text(wanted)
    return made


def _fill(tree: Path) -> None:
    _run(
        "mmdebstrap", "--quiet", "--variant=required", f"--include={','.join(PACKAGES)}",
        "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
        "--dpkgopt=path-exclude=/usr/share/man/*", SUITE, tree,
    )  # fmt: skip
    _write(tree / "etc/initramfs-tools/modules", INITRD_MODULES)
    _write(tree / "etc/initramfs-tools/conf.d/vm", "MODULES=list\nCOMPRESS=lz4\nRESUME=none\n")
    _run("chroot", tree, "update-initramfs", "-u")
    _write(tree / "etc/fstab", "/dev/vda / ext4 defaults,noatime 0 1\n")
    _write(tree / "etc/machine-id", "f" * 31 + "0\n")  # with none this were a first boot
    _write(tree / "etc/hosts", "127.0.0.1 localhost\n")
    for address, mac in UNDERLAY.values():
        text = NETWORK.format(mac=mac, address=address)
        _write(tree / f"etc/systemd/network/{address}.network", text)
    shutil.copyfile(HERE / "agent.py", tree / "usr/local/lib/agent.py")
    _write(tree / "etc/systemd/system/agent.service", AGENT_UNIT)
    _run("chroot", tree, "systemctl", "-q", "enable", "agent.service", "systemd-networkd.service")
    _run("chroot", tree, "systemctl", "-q", "mask", *MASKED)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _run(*command: str | Path) -> None:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = (done.stdout + done.stderr)[-2000:]
        raise OSError(f"making the image, {' '.join(map(str, command[:2]))}: {said}")
