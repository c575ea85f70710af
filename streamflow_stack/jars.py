"""Jars, Apache Kafka's above all: locked by coordinates and SHA-256, downloaded once into the user's cache.

A lock, like ``kafka-jars.json``, is what ``jgo`` resolved from Maven's metadata. To move to another
version, change `KAFKA_VERSION` and run ``python -m streamflow_stack.jars``: it renews the lock.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import platformdirs

from streamflow.errors import StackError, cause_of

if TYPE_CHECKING:
    from jgo.maven import MavenContext

KAFKA_VERSION = "4.3.1"
KAFKA = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
# Kafka logs through slf4j 1.7, and its metadata does not name the bridge to log4j.
LOG_BRIDGE = "org.apache.logging.log4j:log4j-slf4j-impl"

# A mirror for places that cannot reach Maven's central repository.
MIRROR_VARIABLE = "STREAMFLOW_MAVEN_MIRROR"
CACHE_VARIABLE = "STREAMFLOW_CACHE_DIR"

_DOWNLOADS_AT_ONCE = 4
_ATTEMPTS = 3

# Called with bytes done and bytes in total.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Jar:
    """One file of the class path: Maven coordinates, SHA-256 in hex, size in bytes."""

    coordinates: str
    sha256: str
    size: int

    @property
    def file_name(self) -> str:
        """``kafka_2.13-4.3.1.jar``."""
        _, artifact, version = self.coordinates.split(":")
        return f"{artifact}-{version}.jar"


@dataclass(frozen=True)
class JarSet:
    """The jars of one class path: by whom they are named, their lock and their folder of the cache."""

    title: str
    lock: Path
    folder_name: str

    @property
    def folder(self) -> Path:
        return cache_directory() / self.folder_name

    def locked(self) -> tuple[Jar, ...]:
        return tuple(Jar(**jar) for jar in json.loads(self.lock.read_text()))

    def write_lock(self, jars: Sequence[Jar]) -> None:
        self.lock.write_text(json.dumps([asdict(jar) for jar in jars], indent=1) + "\n")


KAFKA_JARS = JarSet("Kafka", Path(__file__).with_name("kafka-jars.json"), f"kafka-{KAFKA_VERSION}")


def cache_directory() -> Path:
    """Where downloads are kept: ``STREAMFLOW_CACHE_DIR``, else the user's cache."""
    folder = os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("streamflow")
    return Path(folder).expanduser().absolute()


def cached_class_path(jars: JarSet = KAFKA_JARS) -> str | None:
    """The class path, when every jar is in the cache; asks neither network nor registry."""
    locked = jars.locked()
    if not all(_is_cached(jars, jar) for jar in locked):
        return None
    return os.pathsep.join(str(jars.folder / jar.file_name) for jar in locked)


def class_path(progress: Progress, jars: JarSet = KAFKA_JARS) -> str:
    """The class path, after downloading what the cache lacks. Raises StackError if the cache cannot be
    written or be part of a class path, or the registry cannot be reached."""
    if os.pathsep in str(cache_directory()):
        raise StackError(
            f"Java cannot read from the cache {cache_directory()}, its path holds a {os.pathsep!r}: "
            f"set {CACHE_VARIABLE} to another folder"
        )
    if cached := cached_class_path(jars):
        return cached
    with exclusive(jars.folder):
        _download(jars, progress)
        shutil.rmtree(jars.folder / "incoming", ignore_errors=True)
    if cached := cached_class_path(jars):
        return cached
    raise StackError(f"the cache {cache_directory()} lost files while it was filled: try again")


def jar_folder() -> Path:
    return KAFKA_JARS.folder


def _is_cached(jars: JarSet, jar: Jar) -> bool:
    try:
        # Only whole, verified files are ever moved to their final names.
        return (jars.folder / jar.file_name).stat().st_size == jar.size
    except OSError:
        return False


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except PermissionError as error:
        raise StackError(
            f"the cache {folder} cannot be written: set {CACHE_VARIABLE} to a folder of yours"
        ) from error


def _download(jars: JarSet, progress: Progress) -> None:
    from requests import RequestException  # noqa: PLC0415 (slow import, first start only)

    missing = [jar for jar in jars.locked() if not _is_cached(jars, jar)]
    total = sum(jar.size for jar in missing)
    done = 0
    guard = Lock()

    def advance(count: int) -> None:
        nonlocal done
        with guard:
            done += count
            progress(min(done, total), total)

    with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
        futures = [pool.submit(_fetch, jar, jars.folder, advance) for jar in missing]
        try:
            for future in futures:
                future.result()
        except (RequestException, RuntimeError) as error:
            raise StackError(
                f"{jars.title}'s jars cannot be downloaded ({cause_of(error)}): check the network or the "
                f"proxy, set {MIRROR_VARIABLE} to a Maven mirror, or copy a filled cache to "
                f"{cache_directory()}"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _fetch(jar: Jar, folder: Path, advance: Callable[[int], None]) -> None:
    """Downloads one jar, verifies it and moves it to its final name in `folder`.

    Raises:
        requests.RequestException: the registry cannot be reached.
        RuntimeError: it has no such file, or another than the locked one.
    """
    from requests import RequestException  # noqa: PLC0415
    from tenacity import (  # noqa: PLC0415
        Retrying,
        retry_if_exception_type,
        stop_after_attempt,
        wait_exponential,
    )

    group, artifact, version = jar.coordinates.split(":")
    attempts = Retrying(
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_exponential(0.5, max=5),
        retry=retry_if_exception_type(RequestException),
        reraise=True,
    )
    for attempt in attempts:
        with attempt:
            context = maven(folder / "incoming", advance)
            wanted = context.project(group, artifact).at_version(version).artifact()
            # A piece that an interrupted run left would be taken for the whole.
            if wanted.cached_path:
                wanted.cached_path.unlink(missing_ok=True)
            path = Path(wanted.resolve())
            if hashlib.sha256(path.read_bytes()).hexdigest() != jar.sha256:
                path.unlink()
                raise RuntimeError(f"{jar.file_name} is not the file that this release expects")
            path.replace(folder / jar.file_name)


def maven(folder: Path, advance: Callable[[int], None] | None = None) -> "MavenContext":
    from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415

    @contextlib.contextmanager
    def report(_name: str, _size: int) -> Iterator[Callable[[int], None]]:
        yield advance or (lambda _count: None)

    mirror = os.environ.get(MIRROR_VARIABLE)
    return MavenContext(
        resolver=PythonResolver(progress_callback=report),
        repo_cache=folder,
        remote_repos={"mirror": mirror} if mirror else None,
    )


def resolved(context: "MavenContext", roots: Sequence[str]) -> list[Jar]:
    """The jars that Maven's metadata names for these coordinates."""
    first, others = context.resolver.resolve([context.create_dependency(root) for root in roots])
    return [
        locked(context, f"{one.groupId}:{one.artifactId}:{one.version}")
        for one in (*first, *others)
        if one.scope in {None, "compile", "runtime"}
    ]


def locked(context: "MavenContext", coordinates: str) -> Jar:
    """The jar with these coordinates, and nothing that it needs."""
    content = Path(context.create_dependency(coordinates).artifact.resolve()).read_bytes()
    return Jar(coordinates, hashlib.sha256(content).hexdigest(), len(content))


def _lock_kafka() -> None:
    context = maven(KAFKA_JARS.folder / "resolve")
    jars = resolved(context, [KAFKA])
    # The bridge's own metadata would override Kafka's versions, so only its file is taken.
    [log4j] = [each for each in jars if ":log4j-core:" in each.coordinates]
    version = log4j.coordinates.rpartition(":")[2]
    KAFKA_JARS.write_lock([*jars, locked(context, f"{LOG_BRIDGE}:{version}")])


if __name__ == "__main__":
    _lock_kafka()
