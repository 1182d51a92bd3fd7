"""Finding one's way through the models by key path: which keys there are, and of what type."""

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from dev_opsgpt.config.problems import KeyPath


def bare(annotation: Any) -> Any:
    """Take `Annotated` and `| None` off a type."""
    if get_origin(annotation) is Annotated:
        return bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        members = [member for member in get_args(annotation) if member is not NoneType]
        if len(members) == 1:
            return bare(members[0])
    return annotation


def is_optional(annotation: Any) -> bool:
    """Tell whether None may stand for a value of this type."""
    return NoneType in get_args(annotation)


def is_text(annotation: Any) -> bool:
    """Tell whether a value of this type is written as a string."""
    return bare(annotation) in (str, SecretStr)


def as_model(annotation: Any) -> type[BaseModel] | None:
    """Give the model class a type stands for, or None."""
    inner = bare(annotation)
    return inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None


def fields_of(annotation: Any) -> dict[str, FieldInfo]:
    """Give the fields of a model type by the key they have in the files; {} for other types."""
    model = as_model(annotation)
    if model is None:
        return {}
    return {field.alias or name: field for name, field in model.model_fields.items()}


def step(annotation: Any, key: str | int) -> Any:
    """Give the type under `key` of a value of type `annotation`; `Any` where nothing is known."""
    fields = fields_of(annotation)
    if key in fields:
        return fields[str(key)].annotation
    inner = bare(annotation)
    arguments = get_args(inner)
    if get_origin(inner) in (dict, Mapping):
        return arguments[1]
    if get_origin(inner) in (list, tuple):
        return arguments[0]
    return Any


def type_at(annotation: Any, path: KeyPath) -> Any:
    """Give the type at the end of a key path."""
    for key in path:
        annotation = step(annotation, key)
    return annotation


def field_at(annotation: Any, path: KeyPath) -> FieldInfo | None:
    """Give the field at the end of a key path, or None where the path ends in no model's field."""
    if not path:
        return None
    return fields_of(type_at(annotation, path[:-1])).get(str(path[-1]))
