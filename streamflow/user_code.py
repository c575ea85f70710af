"""Modules of users: importing them, and saying what is wrong in them, and where, in one sentence."""

import ast
import re
import signal
import sys
import sysconfig
import traceback
from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module, invalidate_caches
from importlib.util import find_spec
from inspect import getsource
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Final, TypeVar

from pydantic import ValidationError
from pydantic.errors import PydanticUserError

from streamflow.errors import ConfigurationError, StreamFlowError

_T = TypeVar("_T")

_ROOT: Final = Path(__file__).resolve().parents[1]
_OURS: Final = tuple(
    str(_ROOT / package)
    for package in (
        "streamflow/", "streamflow_bench/", "streamflow_cli/", "streamflow_dagster/",
        "streamflow_stack/", "streaming_workers/", "streamlit_app/",
    )
)  # fmt: skip
_LIBRARIES: Final = tuple(
    sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
_CLASS: Final = re.compile(r"<class '([^']+)'>")
_ENCODED: Final = re.compile("null bytes|unicode error|encoding problem")
_IN_A_CIRCLE: Final = "circular import"


def import_named(module: str) -> ModuleType:
    """Imports a module that a setting names: an installed one, or one in the current folder, which is
    searched last and only if no installed module has that name, so that nothing in it can shadow a
    library. Raises ConfigurationError, in a sentence about the user's file, for whatever goes wrong."""
    return explained(lambda: _import(module), module)


def explained(action: Callable[[], _T], module: str, where: Callable[[], str] = lambda: "") -> _T:
    """What an action on the user's code returns. Raises ConfigurationError for whatever goes wrong in it;
    `where` is said of what no line of the user's own has raised."""
    try:
        return action()
    except BaseException as error:
        name_of_fault(error)
        raise ConfigurationError(explain(error, module, where())) from error


def name_of_fault(error: BaseException) -> str:
    """What the user's code has raised, for those who catch ``BaseException`` around it: code that calls
    ``sys.exit`` must end no worker (G14). Raises the error again if a signal has, since that is to end the
    process."""
    if _is_of_signal(error):
        raise error
    return type(error).__name__


def _is_of_signal(error: BaseException) -> bool:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    # Python's own handler leaves no frame.
    if isinstance(error, KeyboardInterrupt) and signal.default_int_handler in handlers:
        return True
    codes = [one.__code__ for one in handlers if isinstance(one, FunctionType | MethodType)]
    return any(frame.f_code in codes for frame, _ in traceback.walk_tb(error.__traceback__))


def _import(module: str) -> ModuleType:
    package, _, ending = module.partition(".")
    if not all(part.isidentifier() for part in module.split(".")) or ending == "py":
        raise ConfigurationError(_no_module_name(module))
    here = str(Path.cwd())
    if package and find_spec(package) is None and here not in sys.path:
        sys.path.append(here)
    invalidate_caches()
    return import_module(module)


def explain(error: BaseException, module: str, where: str = "") -> str:
    """What is wrong in a user's module, with file and line."""
    if isinstance(error, SyntaxError):
        advice = ": save the file as UTF-8" if _ENCODED.search(error.msg) else ""
        return f"{place(error.filename or _file_of(module), error.lineno)}: {error.msg}{advice}"
    frame = _frame_of(error)
    if frame is None:
        is_missing = isinstance(error, ModuleNotFoundError)
        return _not_found(module) if is_missing and not where else f"{where}{_reason(error)}"
    return f"{place(frame.filename, frame.lineno)}: {_reason(error)}"


def declared_at(module: ModuleType, name: str) -> str:
    """Where a module assigns a name, such as "my_streams.py, line 12: "; empty if it does not."""
    try:
        tree = ast.parse(getsource(module))
    except (OSError, TypeError, SyntaxError):
        return ""
    lines = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == name
    ]
    return f"{place(module.__file__ or module.__name__, lines[-1])}: " if lines else ""


def declared_name(path: str) -> str | None:
    """The ``name=`` that a file gives to a stream, whether it can be imported or not; None if it cannot be
    read."""
    module, _, variable = path.partition(":")
    try:
        tree = ast.parse(Path(_file_of(module)).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
    names = [
        keyword.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call)
        if variable in {target.id for target in _targets(node) if isinstance(target, ast.Name)}
        for keyword in node.value.keywords
        if keyword.arg == "name" and isinstance(keyword.value, ast.Constant)
    ]
    return names[-1] if names and isinstance(names[-1], str) else None


def _targets(node: ast.Assign | ast.AnnAssign) -> list[ast.expr]:
    return node.targets if isinstance(node, ast.Assign) else [node.target]


def nearest(name: str, names: list[str]) -> str:
    """A hint for a name that does not exist; empty if none is near."""
    near = get_close_matches(name, names, 1)
    return f" (did you mean {near[0]}?)" if near else ""


def place(file: str, line: int | None) -> str:
    path = Path(file)
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return f"{path}, line {line}" if line else str(path)


def _file_of(module: str) -> str:
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        spec = None
    return (spec.origin if spec is not None else None) or module


def _frame_of(error: BaseException) -> traceback.FrameSummary | None:
    """The innermost frame of the user's own code."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_file() and not frame.filename.startswith(_OURS)
    ]
    own = [frame for frame in frames if not frame.filename.startswith(_LIBRARIES)]
    # An installed module of the user's is among the libraries.
    installed = [frame for frame in frames if frame.name == "<module>"]
    return next(reversed(own or installed), None)


def _no_module_name(module: str) -> str:
    path = module.removesuffix(".py").replace("\\", "/").strip("./").replace("/", ".")
    if path != module and all(part.isidentifier() for part in path.split(".")):
        return f"{module} is a file and no module: write {path}"
    return f"{module!r} is no name of a module"


def _not_found(module: str) -> str:
    hint = nearest(module, [file.stem for file in Path.cwd().glob("*.py")])
    return (
        f"there is no module {module}{hint}: it is not installed, and {Path.cwd()} has no "
        f"{module.replace('.', '/')}.py"
    )


def _reason(error: BaseException) -> str:
    text = str(error).strip()
    if _IN_A_CIRCLE in text:
        found = re.search(r"module '([^']+)'", text)
        other = found[1] if found else "one of its modules"
        return (
            f"{other} is imported while it is being imported itself, in a circle: move what both "
            "modules need into a third one"
        )
    if isinstance(error, ModuleNotFoundError):
        return f"there is no module {error.name}: install its package beside StreamFlow"
    if isinstance(error, ImportError):
        return re.sub(r" \([^)]*\)$", "", text.splitlines()[0] if text else "cannot be imported")
    if isinstance(error, PydanticUserError):
        return _pydantic_s(error, text)
    if isinstance(error, ValidationError):
        return f"{error.title}: {error.errors(include_input=False)[0]['msg']}"
    if isinstance(error, StreamFlowError):
        return text
    if isinstance(error, NameError):
        return f"{text}: import it, or correct the name"
    if isinstance(error, SystemExit):
        return "ends the process (sys.exit): a module of streams only declares them"
    if isinstance(error, TypeError | ValueError):
        return text.replace(".__init__()", "").splitlines()[0] if text else type(error).__name__
    first = text.splitlines()[0] if text else ""
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _pydantic_s(error: PydanticUserError, text: str) -> str:
    found = _CLASS.search(text)
    name = found[1].rpartition(".")[2] if found else "a model"
    if error.code == "schema-for-unknown-type":
        return f"{name} is no type that pydantic can check: use another for the field"
    if error.code == "class-not-fully-defined":
        return f"{name} has a field whose type is not defined: import it, or define it first"
    first = text.splitlines()[0] if text else type(error).__name__
    return first.partition("; ")[0].rstrip(".")
