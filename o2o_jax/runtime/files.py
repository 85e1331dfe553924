"""Small files that are there whole or not at all. Impure."""

import os
from pathlib import Path


def replace(path: Path, text: str) -> None:
    """Writes a text file at once: whoever is killed or loses power leaves the old file or the new one.

    Args:
      path: of the file; beside it a hidden draft exists for a moment.
      text: its whole content.
    """
    draft = path.with_name(f".{path.name}.part")
    with draft.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
