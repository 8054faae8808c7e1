"""The types of models, by the library that validates them.

Pydantic validates its models, dataclasses and typed dictionaries, and unions of these; msgspec its structs.
"""

from __future__ import annotations

from typing import Any

from asyncapy_typed.model_types import ModelType
from asyncapy_typed.pydantic_models import PydanticType, is_pydantic
from asyncapy_typed.structs import StructType, is_struct


def model_type(kind: Any) -> ModelType | None:
    """Return the `ModelType` of a type, or None if it is no type of models.

    Raises:
        TypeError: it is one that cannot be used; the message gives the reason.
    """
    if is_struct(kind):
        return StructType(kind)
    return PydanticType(kind) if is_pydantic(kind) else None
