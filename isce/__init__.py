"""A replication of I-SCE (inference-softmax cross-entropy), and attacks that do not depend on the scale of logits."""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from isce.losses import ISCELoss, isce_loss

__version__ = "0.1.0"
__all__ = ["ISCELoss", "isce_loss"]
_MODULES = {module.name for module in iter_modules(__path__)}


def __getattr__(name: str) -> Any:
    """The modules, on their first use: `import isce` alone loads torch and the loss."""
    if name in _MODULES:
        return import_module(f"isce.{name}")
    raise AttributeError(f"module 'isce' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
