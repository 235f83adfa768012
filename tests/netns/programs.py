"""Real programs for the end-to-end tests: nginx, and small socket programs for Python in a pod."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.netns.net import Net

__all__ = ["PROBE", "UDP_ASK", "UDP_ECHO", "fetch", "nginx", "python", "status"]

NGINX_CONF = """
daemon off;
user root;
master_process off;
pid {folder}/pid;
events {{}}
http {{
    access_log {folder}/access.log;
    send_timeout 300s;
    server {{
        listen {port};
        listen [::]:{port};
        root {folder};
    }}
}}
"""

UDP_ECHO = """
import socket, sys
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
    sock.bind(("::", int(sys.argv[1])))
    while True:
        data, client = sock.recvfrom(65535)
        sock.sendto(data[::-1], client)
"""
"""Answers each datagram with its bytes in reverse order."""

UDP_ASK = """
import json, os, socket, sys
address, port, length, times, timeout_s = sys.argv[1], *map(int, sys.argv[2:])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
answers = []
with socket.socket(family, socket.SOCK_DGRAM) as sock:
    sock.settimeout(timeout_s)
    sock.connect((address, port))
    for _ in range(times):
        data = os.urandom(length)
        try:
            sock.send(data)
            answers.append("whole" if sock.recv(65535) == data[::-1] else "damaged")
        except OSError as error:
            answers.append(type(error).__name__)
print(json.dumps(answers))
"""
"""Sends random datagrams to a UDP_ECHO and tells of each what came back."""

PROBE = """
import json, select, socket, struct, sys
kind, target = sys.argv[1:3]
six = ":" in target
family, level = (socket.AF_INET6, 41) if six else (socket.AF_INET, 0)
TTL, RECVERR, ERRQUEUE = (16, 25, 0x2000) if six else (2, 11, 0x2000)
hops = []
for ttl in map(int, sys.argv[3:]):
    data = struct.pack("!BBHHH", 128 if six else 8, 0, 0, 4711, ttl) + b"probe!"
    if not six:
        total = sum(struct.unpack("!7H", data)) % 0xFFFF
        data = data[:2] + struct.pack("!H", 0xFFFF - total) + data[4:]
    how = (socket.SOCK_DGRAM, 0) if kind == "udp" else (socket.SOCK_RAW, 58 if six else 1)
    with socket.socket(family, *how) as sock:
        sock.setsockopt(level, TTL, ttl)
        sock.setsockopt(level, RECVERR, 1)
        sock.connect((target, 33434 if kind == "udp" else 0))
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        sock.send(data)
        hop = [ttl, None, None]
        while hop[1] is None and (events := poll.poll(5000)):
            if events[0][1] & select.POLLERR:
                ((_, _, value),) = sock.recvmsg(512, 512, ERRQUEUE)[1]
                teller = value[24:40] if six else value[20:24]
                hop = [ttl, socket.inet_ntop(family, teller), f"{value[5]}/{value[6]}"]
            elif sock.recv(512)[0 if six else 20] == (129 if six else 0):
                hop = [ttl, target, "reply"]
        hops.append(hop)
print(json.dumps(hops))
"""
"""Like traceroute: one UDP or ICMP probe a TTL; prints [TTL, who answered, ICMP type/code]."""


def python(net: Net, short: str, program: str, *arguments: object) -> Any:
    """Run one of the programs in a pod; returns the JSON it prints."""
    done = net.lab.run(short, sys.executable, "-c", program, *map(str, arguments))
    return json.loads(done.stdout) if done.stdout.strip() else None


def nginx(
    net: Net, short: str, port: int = 8080, files: Mapping[str, bytes] | None = None
) -> int:  # fmt: skip
    """Start nginx in a pod; returns its pid.

    Args:
        net: the lab.
        short: the pod; ``/`` is its name.
        port: TCP port, both families.
        files: what else it serves, by name.
    """
    folder = net.lab.directory / f"nginx-{short}-{port}"
    folder.mkdir(exist_ok=True)
    for name, data in {"index.html": f"{short}\n".encode(), **(files or {})}.items():
        (folder / name).write_bytes(data)
    conf = folder / "nginx.conf"
    conf.write_text(NGINX_CONF.format(folder=folder, port=port))
    server = net.lab.spawn(
        short, "nginx", "-e", "stderr", "-c", str(conf), log=f"nginx-{short}-{port}.log"
    )
    net.lab.wait_for(
        f"nginx in {short}", lambda: f":{port} " in net.lab.run(short, "ss", "-ltn").stdout
    )
    return server.pid


def fetch(net: Net, short: str, url: str, times: int = 1, max_s: float = 8) -> list[str]:
    """First line of what curl gets, for so many requests one after the other; "-" = none."""
    script = 'i=0; while [ $i -lt $1 ]; do curl -sgf -m $2 "$0" || echo -; i=$((i+1)); done'
    done = net.lab.run(short, "sh", "-c", script, url, str(times), str(max_s), timeout_s=120)
    return done.stdout.split()


def status(net: Net, short: str, url: str, max_s: float = 8) -> tuple[int, str]:
    """The exit code of curl and the HTTP status it saw, "000" for none."""
    command = ("curl", "-sg", "-m", str(max_s), "-o", "/dev/null", "-w", "%{http_code}", url)
    done = net.lab.run(short, *command, check=False)
    return done.returncode, done.stdout
