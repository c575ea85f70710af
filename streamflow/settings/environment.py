"""The environment of this process, and of those that it starts: what is meant for other servers does not
reach our own."""

import hashlib
import ipaddress
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final
from urllib.request import getproxies_environment

# `streamflow env` sets it beside the addresses, which are recognised by it when their stack has ended.
OWN_ADDRESSES: Final = "STREAMFLOW_OWN_ADDRESSES"

_ADDRESSES: Final = ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL")
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
# Of libpq and of PostgreSQL's server; PGSERVICE cannot be overridden by a parameter of a URL.
_POSTGRES: Final = re.compile(r"PG[A-Z]+(_TIMEOUT)?")


def marked(state_dir: Path, addresses: Mapping[str, str]) -> dict[str, str]:
    """Addresses of the stack of a state directory, with what `own_addresses` knows them by."""
    marks = (_mark(state_dir, name, addresses[name]) for name in _ADDRESSES)
    return {**addresses, OWN_ADDRESSES: ",".join(marks)}


def own_addresses(state_dir: Path) -> frozenset[str]:
    """The variables that hold what `streamflow env` has printed for this very stack. Taken for addresses
    of foreign servers, they would outlive the stack."""
    marks = os.environ.get(OWN_ADDRESSES, "").split(",")
    return frozenset(
        name for name in _ADDRESSES if _mark(state_dir, name, os.environ.get(name, "")) in marks
    )


def forget(names: Iterable[str]) -> None:
    for name in names:
        os.environ.pop(name, None)


def _mark(state_dir: Path, name: str, address: str) -> str:
    # Also known once the password in it is gone, after `down --purge`.
    return hashlib.sha256(f"{state_dir.absolute()}\n{name}={address}".encode()).hexdigest()


def forget_libpq() -> None:
    """Removes what libpq and PostgreSQL read from the environment."""
    forget(filter(_POSTGRES.fullmatch, list(os.environ)))


def bypass_proxies(*hosts: str) -> None:
    """Lets requests to this machine and to `hosts` go past a proxy of the environment: ours, and those of
    libraries (gRPC within Dagster)."""
    if not getproxies_environment():
        return
    for name in ("no_grpc_proxy", "no_proxy"):
        listed = os.environ.get(name) or os.environ.get(name.upper())
        if name == "no_grpc_proxy" and not listed:
            continue  # gRPC reads no_proxy then
        known = [part.strip() for part in (listed or "").split(",") if part.strip()]
        if "*" not in known:
            value = ",".join(dict.fromkeys((*known, *_LOOPBACK, *hosts)))
            os.environ[name] = os.environ[name.upper()] = value


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
