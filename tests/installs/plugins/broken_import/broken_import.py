"""A plugin that fails to import."""

raise RuntimeError("no luck today")
