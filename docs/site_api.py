"""How the Python API's page shows types: as a reader writes them, without what checks them at run time."""

from typing import Any

import griffe


class PlainTypes(griffe.Extension):
    """Shows `Annotated[T, …]` as `T`."""

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
