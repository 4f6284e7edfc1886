"""The network architectures, by name. `register_architecture` adds one of your own."""

from ptycho_fast.models.architectures.registry import (
    build_architecture,
    list_architectures,
    register_architecture,
)

__all__ = ["build_architecture", "list_architectures", "register_architecture"]
