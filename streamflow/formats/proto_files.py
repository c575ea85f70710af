"""From the text of a ``.proto`` file, as a registry keeps it, to descriptors of its messages."""

import base64
import re
import tempfile
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from streamflow.formats.schema_registry import RegisteredSchema

if TYPE_CHECKING:
    from google.protobuf.descriptor import FileDescriptor
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

_NAME: Final = "record.proto"
_IMPORT: Final = re.compile(r'\bimport\s+(?:public\s+|weak\s+)?"([^"]+)"')
# Files that come with Protobuf or the client of the registry, and that nobody registers.
_KNOWN_FILE: Final = re.compile(
    r"(google/protobuf|google/type|confluent|confluent/types?)/(\w+)\.proto", re.ASCII
)


def described(schema: RegisteredSchema) -> "FileDescriptor":
    """The file of a schema, with all that it imports. Raises any exception if it is broken."""
    from google.protobuf.descriptor_pool import DescriptorPool  # noqa: PLC0415 (an extra)

    files: dict[str, FileDescriptorProto] = {}
    for name, text in (*schema.references, (_NAME, schema.text)):
        files[name] = _file_of(name, text, files)
    pool = DescriptorPool()
    for file in files.values():
        pool.Add(file)
    return pool.FindFileByName(_NAME)


def _file_of(
    name: str, text: str, files: "dict[str, FileDescriptorProto]"
) -> "FileDescriptorProto":
    """The descriptor of a file. Adds to `files` the known ones that it imports."""
    from google.protobuf.descriptor_pb2 import FileDescriptorProto  # noqa: PLC0415

    if "{" in text or ";" in text:
        _add_known(files, _IMPORT.findall(text))
        return _compiled(name, text, files)
    # The client for Python registers descriptors instead of text.
    file = FileDescriptorProto.FromString(base64.b64decode(text, validate=True))
    file.name = name
    _add_known(files, file.dependency)
    return file


def _add_known(files: "dict[str, FileDescriptorProto]", names: Iterable[str]) -> None:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto  # noqa: PLC0415

    for name in names:
        match = _KNOWN_FILE.fullmatch(name)
        if match is None or name in files:
            continue
        package = match[1].replace("/", ".")
        if package.startswith("confluent"):
            package = f"confluent_kafka.schema_registry.{package}"
        descriptor: FileDescriptor = import_module(f"{package}.{match[2]}_pb2").DESCRIPTOR
        _add_known(files, [needed.name for needed in descriptor.dependencies])
        files[name] = FileDescriptorProto.FromString(descriptor.serialized_pb)


def _compiled(
    name: str, text: str, files: "dict[str, FileDescriptorProto]"
) -> "FileDescriptorProto":
    """What protoc makes of a file that imports `files`."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet  # noqa: PLC0415
    from grpc_tools import protoc  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        # A reference may have any name, also one that leads out of the folder.
        source, known, made = (Path(folder, part) for part in (_NAME, "known", "made"))
        source.write_text(text)
        known.write_bytes(FileDescriptorSet(file=files.values()).SerializeToString())
        arguments = (f"-I{folder}", f"--descriptor_set_in={known}", f"--descriptor_set_out={made}")
        if protoc.main(["protoc", *arguments, _NAME]):
            raise ValueError("protoc refuses the file")
        [file] = FileDescriptorSet.FromString(made.read_bytes()).file
    file.name = name
    return file
