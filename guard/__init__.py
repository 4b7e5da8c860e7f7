"""Cryptomnesia: is a diffusion model about to reproduce its training data?"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .demo import load_demo as load_demo
    from .denoiser import CallableDenoiser as CallableDenoiser
    from .errors import CryptomnesiaError as CryptomnesiaError
    from .errors import MemorizationBlocked as MemorizationBlocked
    from .errors import MemorizationWarning as MemorizationWarning
    from .errors import UnverifiedBlocked as UnverifiedBlocked
    from .errors import UnverifiedWarning as UnverifiedWarning
    from .guard import Guard as Guard
    from .monitoring import MemorizationMonitor as MemorizationMonitor
    from .version import __version__ as __version__

_HOMES = {
    "Guard": ".guard",
    "CallableDenoiser": ".denoiser",
    "CryptomnesiaError": ".errors",
    "MemorizationBlocked": ".errors",
    "MemorizationMonitor": ".monitoring",
    "MemorizationWarning": ".errors",
    "UnverifiedBlocked": ".errors",
    "UnverifiedWarning": ".errors",
    "load_demo": ".demo",
    "__version__": ".version",
}
__all__ = [
    "CallableDenoiser",
    "CryptomnesiaError",
    "Guard",
    "MemorizationBlocked",
    "MemorizationMonitor",
    "MemorizationWarning",
    "UnverifiedBlocked",
    "UnverifiedWarning",
    "__version__",
    "load_demo",
]


def __getattr__(name: str) -> Any:
    # loaded on first use, so that importing the package costs next to nothing
    if name in _HOMES:
        return getattr(import_module(_HOMES[name], __name__), name)
    if not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
