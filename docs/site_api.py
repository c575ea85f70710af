"""How the Python API's page shows types: as a reader writes them, without what checks them at run time."""

from typing import Any, Final

import griffe

# What StreamFlow keeps for itself in what users declare.
_INTERNAL: Final = {"misnamed"}


class PlainTypes(griffe.Extension):
    """Shows `Annotated[T, …]` as `T`, and no fields that are not for users."""

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        for name in _INTERNAL & cls.members.keys():
            cls.del_member(name)

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        attr.annotation = _plain(attr.annotation)

    def on_function_instance(self, *, func: griffe.Function, **_: Any) -> None:
        for parameter in func.parameters:
            parameter.annotation = _plain(parameter.annotation)


def _plain(annotation: Any) -> Any:
    if (
        isinstance(annotation, griffe.ExprSubscript)
        and annotation.canonical_name == "Annotated"
        and isinstance(annotation.slice, griffe.ExprTuple)
    ):
        return annotation.slice.elements[0]
    return annotation
