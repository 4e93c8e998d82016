"""A network namespace: clients whose kernel is another one, as far as the service can tell, and can fall silent.

Closing a socket on this machine always tells its peer. A client in the namespace can vanish instead: its packets go
nowhere from some moment on, and the service's wait for an answer that never comes.
"""

import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

REQUEST = b"GET /api/v2/stream?tickers=* HTTP/1.1\r\nHost: elsewhere\r\n\r\n"


def missing() -> str | None:
    """What is lacking here to make a namespace; None if nothing is."""
    if not sys.platform.startswith("linux") or shutil.which("ip") is None:
        return "network namespaces need Linux and iproute2's ip"
    name = f"quartsse-probe-{os.getpid()}"
    probe = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return None if probe.returncode == 0 else "making a network namespace needs the privilege to (root, CAP_NET_ADMIN)"


class Elsewhere:
    """A namespace: `here` is the service's address as its clients see it."""

    def __init__(self, name: str, here: str) -> None:
        self.name = name
        self.here = here
        self.sockets: list[socket.socket] = []

    def streams(self, port: int, count: int) -> list[socket.socket]:
        """So many clients there, each of which has the first bytes of a stream."""
        opened: list[socket.socket] = []
        thread = threading.Thread(target=self._open, args=(port, count, opened))
        thread.start()
        thread.join()
        assert len(opened) == count
        self.sockets += opened
        return opened

    def vanish(self) -> None:
        """From now on nothing that is sent there arrives here."""
        _ip("-n", self.name, "route", "add", "blackhole", f"{self.here}/32")

    def return_(self) -> None:
        """It does again."""
        _ip("-n", self.name, "route", "del", "blackhole", f"{self.here}/32")

    def crash(self) -> None:
        """Every client there forgets its connection; of its farewell nothing arrives if it has vanished before."""
        for sock in self.sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        self.sockets.clear()

    def _open(self, port: int, count: int, opened: list[socket.socket]) -> None:
        """In a thread of its own, since a thread can be moved into a namespace; its sockets stay there."""
        with open(f"/run/netns/{self.name}") as namespace:  # noqa: PTH123 - only its descriptor is wanted
            os.setns(namespace.fileno(), os.CLONE_NEWNET)
        for _ in range(count):
            sock = socket.create_connection((self.here, port), timeout=5)
            sock.sendall(REQUEST)
            while b"event: metrics" not in sock.recv(65_536):
                pass
            opened.append(sock)


@contextmanager
def elsewhere() -> Iterator[Elsewhere]:
    """A namespace and a pair of interfaces between it and this one (198.18.0.0/15 is for such things, RFC 2544)."""
    number = os.getpid() % 16_000
    name, outer, inner = f"quartsse-{number}", f"qo{number}", f"qi{number}"
    net = f"198.18.{number // 64}.{number % 64 * 4}".rsplit(".", 1)
    here, there = (f"{net[0]}.{int(net[1]) + offset}" for offset in (1, 2))
    _ip("netns", "add", name)
    try:
        _ip("link", "add", outer, "type", "veth", "peer", "name", inner, "netns", name)
        _ip("addr", "add", f"{here}/30", "dev", outer)
        _ip("link", "set", outer, "up")
        _ip("-n", name, "addr", "add", f"{there}/30", "dev", inner)
        _ip("-n", name, "link", "set", inner, "up")
        made = Elsewhere(name, here)
        yield made
        made.crash()
    finally:
        _ip("netns", "del", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)
