"""Wheels made by the tests themselves, so that nothing is asked of the network."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path


def wheel(
    folder: Path, name: str, version: str, requires: Iterable[str] = (), *, program: str = "", pth: str = ""
) -> tuple[Path, str]:
    """Write a wheel with one module ``name`` that has its ``VERSION``; returns it and its SHA-256.

    ``program``: the text of a script called like that; ``pth``: what runs whenever Python starts beside it."""
    about = f"{name}-{version}.dist-info"
    head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    contents = {
        f"{name}.py": f"VERSION = {version!r}\n",
        **({f"{name}.pth": pth} if pth else {}),
        **({f"{name}-{version}.data/scripts/program": program} if program else {}),
        f"{about}/METADATA": head + "".join(f"Requires-Dist: {one}\n" for one in requires),
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},sha256={_digest(text)},{len(text)}\n" for path, text in contents.items())
    folder.mkdir(exist_ok=True)
    target = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(target, "w") as archive:
        for path, content in {**contents, f"{about}/RECORD": f"{record}{about}/RECORD,,\n"}.items():
            archive.writestr(path, content)
    return target, hashlib.sha256(target.read_bytes()).hexdigest()


def source(folder: Path, name: str, version: str, setup: str) -> Path:
    """Write a source distribution that has to be built by running ``setup``."""
    folder.mkdir(exist_ok=True)
    target = folder / f"{name}-{version}.tar.gz"
    with tarfile.open(target, "w:gz") as archive:
        for path, text in {
            "setup.py": setup,
            "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        }.items():
            entry = tarfile.TarInfo(f"{name}-{version}/{path}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return target


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
