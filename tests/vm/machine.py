"""Two virtual machines joined by a wire, each driven through the agent in its image.

     node1, Debian 12                                        node2, Debian 12
+---------------------------+                           +---------------------------+
| systemd -- fwd.service    |   qemu's dgram netdev     | systemd -- fwd.service    |
| pod curl                  |   on two unix sockets     |                 pod nginx |
| 10.244.0.108 -- TAP       |   (an Ethernet, 1500)     |       TAP -- 10.244.2.171 |
| virtio NIC 172.31.7.1  ===============================  172.31.7.2  virtio NIC    |
| agent                     |                           | agent                     |
+---|-----------------------+                           +---|-----------------------+
    virtio port, a unix socket here                         the same

Nothing else leads in or out.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import queue
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

from tests.systemd.machine import Shell
from tests.vm.image import UNDERLAY

if TYPE_CHECKING:
    from pathlib import Path

    from tests.vm.image import Image

__all__ = ["Guest", "accelerator"]

BOOT_S = 240
"""Under tcg a boot takes fifteen seconds on an idle core; CI's may be busy."""
PROBE_S = 8
MEMORY_MB = 640
CHUNK = 1 << 20


def accelerator(image: Image) -> str:
    """Return ``kvm`` where a kernel really boots with it, else ``tcg``.

    /dev/kvm may be there and answer, and yet no guest ever runs its first instruction.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    command = [
        "timeout", "-s", "KILL", str(PROBE_S), "qemu-system-x86_64", *_hardware("kvm"),
        "-m", "256", "-no-reboot", "-serial", "stdio",
        "-kernel", str(image.kernel), "-append", "console=ttyS0 panic=-1",
    ]  # fmt: skip
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return "kvm" if b"Linux version" in done.stdout else "tcg"


def _hardware(accel: str) -> list[str]:
    return [
        "-machine", f"q35,accel={accel}", "-cpu", "max", "-nodefaults", "-no-user-config",
        "-display", "none",
    ]  # fmt: skip


class Guest(Shell):
    """One virtual machine.

    Args:
        name: ``node1`` or ``node2``.
        image: what it boots; changes go to a file that ends with it, and outlive a reboot.
        folder: where the console's log goes.
        sockets: a folder with a short name for the wire and the agent.
        accel: see ``accelerator``.
    """

    def __init__(self, name: str, image: Image, folder: Path, sockets: Path, accel: str) -> None:
        self.name = name
        self.address, mac = UNDERLAY[name]
        self.console = folder / f"console-{name}.log"
        self._folder = folder
        (other,) = set(UNDERLAY) - {name}
        agent = sockets / f"{name}.agent"
        append = f"root=/dev/vda rw console=ttyS0 systemd.hostname={name} panic=5 "
        append += f"systemd.machine_id={name[-1] * 32} systemd.show_status=1 net.ifnames=1"
        wire = f"dgram,id=wire,local.type=unix,local.path={sockets / name}.wire,"
        wire += f"remote.type=unix,remote.path={sockets / other}.wire"
        command = [
            "setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", *_hardware(accel),
            "-m", str(MEMORY_MB), "-kernel", str(image.kernel), "-initrd", str(image.initrd),
            "-append", append, "-serial", f"file:{self.console}",
            "-drive", f"file={image.disk},if=virtio,format=raw,snapshot=on,cache=unsafe",
            "-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
            "-chardev", f"socket,id=agent,path={agent},server=on,wait=off",
            "-device", "virtserialport,chardev=agent,name=fwd.agent",
            "-netdev", wire,
            "-device", f"virtio-net-pci,netdev=wire,mac={mac}",
        ]  # fmt: skip
        self._said = folder / f"qemu-{name}.log"
        with self._said.open("w") as said:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                env=os.environ | {"TMPDIR": str(folder)},
            )  # fmt: skip
        self._ids = itertools.count()
        self._answers: dict[int, queue.Queue[dict[str, Any]]] = {}
        self._boots: queue.Queue[tuple[str, float]] = queue.Queue()
        self._turn = threading.Lock()
        try:
            self._channel = self._connect(agent)
        except OSError:
            self.close()
            raise
        threading.Thread(target=self._listen, daemon=True).start()

    def _connect(self, path: Path) -> socket.socket:
        channel = socket.socket(socket.AF_UNIX)
        deadline = time.monotonic() + 20
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                channel.connect(str(path))
                return channel
            time.sleep(0.05)
        channel.close()
        raise OSError(f"qemu of {self.name} did not start: {self._said.read_text()}")

    def _listen(self) -> None:
        with self._channel.makefile("rb") as lines, contextlib.suppress(OSError):
            for line in lines:
                try:
                    told = json.loads(line)
                except ValueError:
                    continue  # cut off by a reboot
                if "boot" in told:
                    self._boots.put((told["boot"], time.monotonic()))
                elif told["id"] in self._answers:
                    self._answers[told["id"]].put(told)

    def wait(self) -> None:
        """Wait until it has booted, systemd's jobs included.

        Raises:
            OSError: it does not; the text has the console's end.
        """
        try:
            self._boots.get(timeout=BOOT_S)
            state = self.run("systemctl is-system-running --wait", BOOT_S).stdout.strip()
        except (queue.Empty, subprocess.TimeoutExpired):
            state = "silent"
        if state != "running":
            end = self.console.read_text(errors="replace")[-2000:]
            failed = "" if state == "silent" else self.run("systemctl --failed").stdout
            raise OSError(f"{self.name} is {state}, see {self.console}: {failed}{end}")

    def reboot(self) -> None:
        """Order a reboot; ``wait`` waits for its end."""
        self._send({"id": next(self._ids), "script": "systemctl reboot"})

    def run(self, script: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a shell script in it, as root, in /root.

        Raises:
            subprocess.TimeoutExpired: no answer; the script is left to itself.
        """
        return self._order({"script": script}, script, timeout_s)

    def put(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Write a file in it."""
        text = base64.b64encode(data).decode()
        self._order({"path": path, "data": text, "mode": mode}, f"writing {path}", 120)

    def spawn(self, unit: str, command: str) -> None:
        """Run a command as a unit of its own, and leave it to itself."""
        self.out(f"systemd-run -q --collect --unit={unit} {command}")

    def boot_at(self) -> float:
        """When its kernel has booted, by our monotonic clock."""
        up = float(self.out("cut -d' ' -f1 /proc/uptime"))
        return time.monotonic() - up

    def _order(
        self, order: dict[str, Any], what: str, timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        number = next(self._ids)
        box = self._answers[number] = queue.Queue()
        try:
            self._send(order | {"id": number})
            told = box.get(timeout=timeout_s)
        except queue.Empty:
            raise subprocess.TimeoutExpired(f"{self.name}: {what}", timeout_s) from None
        finally:
            del self._answers[number]
        return subprocess.CompletedProcess(what, told["code"], told["stdout"], told["stderr"])

    def _send(self, order: dict[str, Any]) -> None:
        with self._turn:
            self._channel.sendall(json.dumps(order).encode() + b"\n")

    def keep_journal(self) -> None:
        """Write all its journal beside the console's log."""
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            said = self.run("journalctl --no-pager -o short-precise", 60).stdout
            (self._folder / f"journal-{self.name}.log").write_text(said)

    def close(self) -> None:
        """Switch it off."""
        self._process.kill()
        self._process.wait()
        if hasattr(self, "_channel"):
            self._channel.close()
