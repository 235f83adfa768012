"""What a virtual machine is driven by: runs shell scripts that come over a virtio port.

Runs inside, as a unit of the image (image.py), on Debian's own python3. A line is a JSON object:
in `{"id", "script"}` or `{"id", "path", "data", "mode"}`, out `{"id", "code", "stdout", "stderr"}`;
`{"boot"}` says that it is there, and since which boot. The other end is machine.py.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

PORT = Path("/dev/virtio-ports/fwd.agent")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
TURN = threading.Lock()


def say(port: BinaryIO, told: dict[str, Any]) -> None:
    """Write one line."""
    with TURN:
        port.write(json.dumps(told).encode() + b"\n")
        port.flush()


def answer(port: BinaryIO, order: dict[str, Any]) -> None:
    """Do what a line asks for, and say what came of it."""
    if "path" in order:
        path = Path(order["path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(order["data"]))
        path.chmod(order["mode"])
        say(port, {"id": order["id"], "code": 0, "stdout": "", "stderr": ""})
        return
    done = subprocess.run(
        ["/bin/bash", "-c", order["script"]],
        stdin=subprocess.DEVNULL, capture_output=True, check=False, cwd="/root",
    )  # fmt: skip
    said = {"stdout": done.stdout.decode(errors="replace")}
    said["stderr"] = done.stderr.decode(errors="replace")
    say(port, {"id": order["id"], "code": done.returncode, **said})


def main() -> None:
    """Serve until the machine goes down; scripts run beside each other."""
    while not PORT.exists():
        time.sleep(0.1)
    descriptor = os.open(PORT, os.O_RDWR)
    with os.fdopen(os.dup(descriptor), "rb") as lines, os.fdopen(descriptor, "wb") as port:
        port.write(b"\n")  # ends what the boot before was cut off in
        say(port, {"boot": BOOT_ID.read_text().strip()})
        for line in lines:
            try:
                order = json.loads(line)
            except ValueError:
                continue
            threading.Thread(target=answer, args=(port, order), daemon=True).start()


if __name__ == "__main__":
    main()
