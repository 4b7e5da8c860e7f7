"""Files the commands write."""

import os
import tempfile
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Atomically, as UTF-8: whoever stops the command finds the old file or the new one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
