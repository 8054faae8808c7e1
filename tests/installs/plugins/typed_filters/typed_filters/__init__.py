"""Filters of a third party with type annotations, made in all the ways that Python allows."""

from __future__ import annotations

from typed_filters._numbers import Between

__all__ = ["Between"]
