"""Keys and certificates to sign sidecars with. A private key leaves its file for the signing library only."""

import os
import secrets
import stat
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError, SidecarError
from ..files import create, remove
from ..printable import printable
from ..strict_json import read_json
from .certificates import algorithm_of, in_force, local_chain
from .files import read_file

CERTIFICATE, KEY = "CRYPTOMNESIA_C2PA_CERT", "CRYPTOMNESIA_C2PA_KEY"  # environment variables and settings alike
STORE = "CRYPTOMNESIA_STORE"
SHARED = ("input", "output", "temp")  # folders that ComfyUI serves over HTTP
_MOST = 1 << 20
_MOST_TRUST = 10 << 20


@dataclass(frozen=True)
class Chain:
    """Paths of the files of a new key.

    Attributes:
        certificate: Leaf and intermediate certificate, to sign with.
        key: The leaf's private key, readable by its owner only.
        root: What others trust to recognise the signer; give it away freely.
    """

    certificate: Path
    key: Path
    root: Path


@dataclass(frozen=True, eq=False)
class Signer:
    """What signs: PEM certificates from the leaf on, the leaf's key, and C2PA's name of the algorithm."""

    certificates: bytes
    algorithm: str
    key: bytes = field(repr=False)


def config_folder() -> Path:
    """Returns the folder of this user's settings, which need not exist.

    It lies in $XDG_CONFIG_HOME or ~/.config, on Windows in %APPDATA%.
    """
    name = "APPDATA" if sys.platform == "win32" else "XDG_CONFIG_HOME"
    usual = Path(os.path.expanduser("~")) / ("AppData/Roaming" if sys.platform == "win32" else ".config")
    base = Path(os.environ.get(name, ""))
    return (base if base.is_absolute() else usual) / "cryptomnesia"  # a relative one is to be ignored


def new_chain(folder: str | Path, *, name: str | None = None, forbidden: Iterable[str | Path] = ()) -> Chain:
    """Makes a key of one's own: a P-256 chain root -> intermediate -> leaf, valid for ten years.

    The private keys of root and intermediate are never written: no second certificate can be made under this root, and
    a new key has a new root.

    Args:
        folder: Where the files are written; made if need be, for its owner only.
        name: Name in the certificates, for all to read; by default a random one.
        forbidden: Folders that others can look into, e.g. those of images; nothing is written there or below.

    Returns:
        The paths of the new files.

    Raises:
        InputError: The folder is forbidden, or one that ComfyUI serves, or a name is too long.
        SidecarError: A file is there already, or cannot be written.
        MissingPackage: cryptography is not installed.
    """
    folder = Path(os.path.expanduser(folder))
    _require_allowed(folder, forbidden)
    certificate, key, root = local_chain(name or f"Cryptomnesia local {secrets.token_hex(4)}")
    chain = Chain(folder / "certificate.pem", folder / "key.pem", folder / "root.pem")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_private(folder)
        _create_all([(chain.key, key, 0o600), (chain.certificate, certificate, 0o644), (chain.root, root, 0o644)])
    except FileExistsError as error:
        raise SidecarError(f"{error.filename} exists and is not overwritten: choose another folder") from error
    except OSError as error:
        raise SidecarError(f"the key cannot be written to {folder}: {error.strerror}") from error
    return chain


def _create_all(files: Iterable[tuple[Path, bytes, int]]) -> None:
    """Writes all of the files or none."""
    made: list[Path] = []
    try:
        for path, data, mode in files:
            create(path, data, mode)
            made.append(path)
    except BaseException:
        for path in made:
            remove(path)
        raise


def _require_allowed(folder: Path, forbidden: Iterable[str | Path]) -> None:
    real = Path(os.path.normcase(os.path.realpath(folder)))
    for other in forbidden:
        if real.is_relative_to(os.path.normcase(os.path.realpath(other))):
            raise InputError(f"{folder} lies in {other}, where others may see it: keep keys somewhere private")
    if any(part.name in SHARED and (part.parent / "folder_paths.py").is_file() for part in (real, *real.parents)):
        raise InputError(f"{folder} lies where ComfyUI shows its files to others: keep keys somewhere private")


def _require_private(folder: Path) -> None:
    """Raises SidecarError where everybody could put other files into it, or another folder into its place."""
    if os.name != "posix":
        return
    real = Path(os.path.realpath(folder))
    for part in (real, *real.parents):
        mode = part.stat().st_mode
        # above it, as in /tmp, the sticky bit keeps others from renaming what is not theirs
        if mode & stat.S_IWOTH and (part == real or not mode & stat.S_ISVTX):
            raise SidecarError(f"everybody may write to {part}: choose another folder for keys, or `chmod o-w` it")


def trust_folder() -> Path:
    """Returns the folder of the certificates that this user trusts, *.pem, which need not exist."""
    return config_folder() / "trust"


def trusted() -> list[Path]:
    """Returns the files in `trust_folder`, in order of their names."""
    try:
        return sorted(path for path in trust_folder().glob("*.pem") if path.is_file())
    except OSError as error:
        raise SidecarError(f"the folder {trust_folder()} cannot be read: {error.strerror}") from error


def keep_trust(certificate: str | Path) -> Path:
    """Copies a certificate, or a list of them, into `trust_folder`, and returns its path there.

    Raises SidecarError where it holds no certificate that is valid today, or another one of that name is there.
    """
    path = Path(certificate)
    data = in_force(read_file(path, _MOST_TRUST, "certificate"), printable(path))
    kept = trust_folder() / f"{path.stem}.pem"
    try:
        kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_private(kept.parent)
        create(kept, data, 0o644)
    except FileExistsError as error:
        raise SidecarError(
            f"{kept} exists and is not overwritten: rename the certificate, or remove that file"
        ) from error
    except OSError as error:
        raise SidecarError(f"the certificate cannot be kept in {kept.parent}: {error.strerror}") from error
    return kept


def load_signer(certificate: str | Path | None = None, key: str | Path | None = None) -> Signer | None:
    """Loads what sidecars are signed with.

    Args:
        certificate: PEM file with the certificates from the leaf on.
        key: PEM file with the leaf's private key.

    Returns:
        The signer from these two files; else from the environment variables CRYPTOMNESIA_C2PA_CERT and _KEY; else from
        the two settings of those names in settings.json in `config_folder()`; else None.

    Raises:
        InputError: Only one of the two is given.
        SidecarError: A file cannot be read or used, others may read the key, or the two do not belong together.
        MissingPackage: cryptography is not installed.
    """
    for source, paths in (
        ("the arguments name", (certificate, key)),
        ("the environment names", (os.environ.get(CERTIFICATE) or None, os.environ.get(KEY) or None)),
        ("settings.json names", _named_files()),
    ):
        if any("-----" in str(path) for path in paths):
            raise InputError(f"{source} a key or certificate itself: name the files that hold them")
        if all(paths):
            return _signer(*(Path(os.path.expanduser(str(path))) for path in paths))
        if any(paths):
            raise InputError(f"{source} only one of certificate and key: give both, {CERTIFICATE} and {KEY}")
    return None


def setting(name: str) -> str | None:
    """Returns a setting of this user: the environment variable of that name, else that of settings.json, else None.

    Raises SidecarError where settings.json cannot be used.
    """
    return os.environ.get(name) or _settings(name)[0]


def _settings(*names: str) -> tuple[str | None, ...]:
    path = config_folder() / "settings.json"
    try:
        settings = read_json(path, _MOST)
    except FileNotFoundError:
        return (None,) * len(names)
    except OSError as error:
        raise SidecarError(f"the settings {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SidecarError(f"the settings {path} cannot be used ({error}): correct or remove the file") from error
    values = [settings.get(name) for name in names] if isinstance(settings, dict) else [settings]
    if not isinstance(settings, dict) or not all(value is None or isinstance(value, str) for value in values):
        raise SidecarError(f"the settings {path} do not map {' and '.join(names)} to file names or texts: correct it")
    return tuple(values)


def _named_files() -> tuple[str | None, ...]:
    """The files that the settings name, from their own folder on."""
    folder, names = config_folder(), _settings(CERTIFICATE, KEY)
    return tuple(None if name is None else str(folder / os.path.expanduser(name)) for name in names)


def _signer(certificate: Path, key: Path) -> Signer:
    _require_secret(key)
    chain = read_file(certificate, _MOST, "certificate")
    secret = read_file(key, _MOST, "private key")
    return Signer(chain, algorithm_of(chain, secret, certificate, key), secret)


def _require_secret(key: Path) -> None:
    try:
        mode, why = key.stat().st_mode, None
    except OSError as error:
        mode, why = 0, error.strerror
    except ValueError:
        mode, why = 0, "odd characters"
    if why is not None:
        # without the name, which may be the key itself put into the wrong place, and without a cause that has it
        raise SidecarError(f"the file named as private key cannot be read ({why}): see {KEY}")
    if os.name == "posix" and stat.S_ISREG(mode) and mode & 0o077:
        raise SidecarError(f"others may read the private key {key}: run `chmod 600` on it, or make a new key")
    for folder in (key.parent, Path(os.path.realpath(key)).parent):
        _require_private(folder)
