"""Processes of one node meet on its loopback address alone: nobody on the network, or on another node, can join them.

torch's store, by which ranks find each other, listens on every address of the machine and asks nobody for a password,
even where its own name is 127.0.0.1. Here it listens on that address alone. Training and sglang use it, each in its own
processes. On several nodes (their store has another name) everything is as torch has it: a trusted network.
"""

import importlib
import os
import socket
from datetime import timedelta
from typing import Any

from torch.distributed import TCPStore

HOST = "127.0.0.1"
_module = importlib.import_module("torch.distributed.rendezvous")  # as an attribute the name is a function
_stock = _module._create_c10d_store


def create_store(
    hostname: str, port: int, rank: int, world_size: int, timeout: timedelta, use_libuv: bool = True
) -> Any:
    """torch's _create_c10d_store; the first rank of a store on the loopback address listens there alone.

    Safe: the others connect to the same address. Were it stock, other machines could read and write it.
    """
    if hostname not in (HOST, "localhost") or rank != 0 or port == 0:
        return _stock(hostname, port, rank, world_size, timeout, use_libuv)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOST, port))
    listener.listen(2048)
    return TCPStore(
        hostname,
        port,
        world_size,
        True,
        timeout,
        multi_tenant=True,
        use_libuv=use_libuv,
        master_listen_fd=listener.detach(),
    )


def install() -> None:
    """Put it in place in this process; again changes nothing."""
    _module._create_c10d_store = create_store


def environment() -> dict[str, str]:
    """Environment variables by which gloo and NCCL stay on the loopback device; what the user has set counts."""
    return {name: os.environ.get(name, "lo") for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")}
