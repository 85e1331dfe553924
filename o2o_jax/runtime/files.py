"""Small files, and folders of them, that are there whole or not at all. Impure."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from o2o_jax.reading import local


def replace(path: Path, text: str) -> None:
    """Writes a text file at once: whoever is killed or loses power leaves the old file or the new one.

    Args:
      path: of the file; beside it a hidden draft exists for a moment.
      text: its whole content.
    """
    draft = path.with_name(f".{path.name}.part")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def write(path: Path, content: bytes) -> None:
    """Writes a file, which is on the disk when this returns."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def make_folder(folder: Path) -> None:
    """Makes a folder, and those above it, where they are missing.

    Raises:
      OSError: it can't be made, of the type of the system's error.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(f"the folder {folder} can't be made ({error.strerror}): choose another") from error


@contextlib.contextmanager
def new_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """Gives a draft of a folder, which takes its name when the context ends well and vanishes when it doesn't.

    Args:
      folder: that does not exist.

    Raises:
      FileExistsError: there is something of that name.
      OSError: it can't be made.
      ValueError: it is a URL.
    """
    target = Path(local(folder))
    if target.exists() or target.is_symlink():
        raise FileExistsError(f"{target} already exists: choose another folder")
    make_folder(target.parent)
    try:
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise type(error)(f"the folder {target} can't be made ({error.strerror}): choose another") from error
    try:
        yield draft
        draft.chmod(0o755)  # a temporary folder is its owner's alone
        draft.rename(target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
