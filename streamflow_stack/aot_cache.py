"""Kafka's classes, loaded and linked ahead of time (JEP 483 and 514): with them a broker starts in a
third of the time.

The file lies beside the jars and is made once, by ``python -m streamflow_stack.aot_training``. A broker
starts without it as well; and Java itself takes no file of another Java or of other jars.
"""

import hashlib
import os
from pathlib import Path

from streamflow_stack import jars
from streamflow_stack.embedded import java


def cache_file(class_path: str) -> Path:
    """Where the file is, or will be, for this Java and these jars. Raises OSError if they are gone."""
    release = (java().parents[1] / "release").read_text()
    # As Java compares them.
    times = [Path(jar).stat().st_mtime_ns for jar in class_path.split(os.pathsep)]
    digest = hashlib.sha256(f"{release} {class_path} {times}".encode()).hexdigest()[:16]
    return jars.jar_folder() / f"classes-{digest}.aot"


def options(class_path: str) -> tuple[str, ...]:
    """What makes Java use the file; nothing while there is none."""
    try:
        path = cache_file(class_path)
    except OSError:
        return ()
    # A file that does not fit is no fault: Java would print why, and go on.
    return (f"-XX:AOTCache={path}", "-Xlog:aot*=off") if path.exists() else ()
