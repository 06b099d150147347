"""Run a command where the loopback address is the only one there is: `python tests/loopback.py pytest …`.

XRootD and Slurm listen on every address of a machine. In a network namespace of their own that is 127.0.0.1.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys

_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 0x1  # SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP of netdevice(7)


def alone() -> bool:
    """Say whether this machine has no other interface than the loopback."""
    return [name for _, name in socket.if_nameindex()] == ["lo"]


def bring_up() -> None:
    """Start the loopback interface, which is down in a new namespace."""
    with socket.socket() as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, _FLAGS, request))[1]
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh14x", b"lo", flags | _UP))


if __name__ == "__main__":
    command = sys.argv[1:]
    if command[0] != "--inside":
        user = [] if os.geteuid() == 0 else ["--map-current-user", "--keep-caps"]
        os.execvp("unshare", ["unshare", *user, "--net", sys.executable, __file__, "--inside", *command])
    bring_up()
    os.execvp(command[1], command[1:])
