"""The library's errors; all derive from CryptomnesiaError and say what is wrong, why, and how to mend it."""


class CryptomnesiaError(Exception):
    """Base of every error the library raises on purpose."""


class InputError(CryptomnesiaError, ValueError):
    """An argument or a file that cannot be used."""


class NotApplicable(CryptomnesiaError):
    """The question has no meaning for this model or this call, e.g. a guidance-distilled model."""


class CalibrationError(CryptomnesiaError):
    """A calibration that is malformed, or belongs to another model or other settings."""


class NonFiniteError(CryptomnesiaError):
    """The model answered with NaN or infinity; no verdict can be drawn from that."""


class OutOfMemory(CryptomnesiaError):
    """The device has no memory for that many rows."""


class MissingPackage(CryptomnesiaError, ImportError):
    """An optional package is needed; the message names the extra to install."""


def require(module: str, extra: str):
    """Imports an optional module by name, or raises MissingPackage naming the extra that brings it."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackage(
            f"this needs the package {module.split('.')[0]!r}: pip install 'cryptomnesia[{extra}]'"
        ) from error
