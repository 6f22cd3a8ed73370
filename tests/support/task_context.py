"""What a task is given when it runs, for tests: files in a folder, and a log that can be read back."""

from __future__ import annotations

import dataclasses
import pathlib

from headrace.engine import errors


class FolderWriter:
    """Writes beside, then renames."""

    def __init__(self, target: pathlib.Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        self._target = target
        self._beside = target.with_name(target.name + ".part")
        self._stream = self._beside.open("wb")

    def write(self, chunk: bytes) -> None:
        self._stream.write(chunk)

    def commit(self) -> None:
        self._stream.close()
        self._beside.replace(self._target)

    def abort(self) -> None:
        self._stream.close()
        self._beside.unlink(missing_ok=True)


class FolderFiles:
    """Implements ``ports.Files`` over a folder."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root

    def write(self, path: str) -> FolderWriter:
        if ".." in pathlib.PurePosixPath(path).parts or path.startswith("/"):
            raise errors.InvalidRequest(f"the path {path} leaves the store")
        return FolderWriter(self.root / path)

    def read(self, path: str) -> bytes:
        try:
            return (self.root / path).read_bytes()
        except FileNotFoundError:
            raise errors.NotFound(f"there is no file {path}") from None

    def move(self, path: str, new_path: str) -> int:
        content = self.read(path)
        writer = self.write(new_path)
        writer.write(content)
        writer.commit()
        if path != new_path:
            (self.root / path).unlink()
        return len(content)

    def names(self) -> list[str]:
        return sorted(str(one.relative_to(self.root)) for one in self.root.rglob("*") if one.is_file())


@dataclasses.dataclass
class Context:
    """Implements ``ports.TaskContext``."""

    files: FolderFiles
    execution_id: str = "0123456789abcdefghjkmnpqrs"
    allow_local_files: bool = False
    traceparent: str = ""
    lines: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    hidden: list[object] = dataclasses.field(default_factory=list)
    #: What people are asked, and what they answer.
    asked: list[tuple[str, bytes]] = dataclasses.field(default_factory=list)
    answer: bytes = b"{}"

    def hide(self, secret: object) -> None:
        self.hidden.append(secret)

    async def ask(self, subject: str, form: bytes) -> bytes:
        self.asked.append((subject, form))
        return self.answer

    def log(self, level: str, text: str) -> None:
        self.lines.append((level, text))

    @property
    def text(self) -> str:
        return "\n".join(f"{level} {text}" for level, text in self.lines)


class ManualPacing:
    """Time that passes only by sleeping, and chance that always takes the whole pause."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def monotonic(self) -> float:
        return self.now

    def random(self) -> float:
        return 1.0
