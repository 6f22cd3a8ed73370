"""Builds the Debian package of a commit: the wheel and all it needs in an environment of its own, /usr/lib/headrace.

The environment belongs to Debian's own python3 of the minor version it is built with, and the package depends on that.
What is in it says ``requirements.txt``, with hashes. Units, manual page and completion are what the installed
``headrace`` itself prints, so there is no second copy to keep. Modules are compiled here, so that installing is
unpacking, fetches nothing, and a removal leaves nothing. The same commit, tools and Python give the same bytes.
``debian/`` holds the scripts that dpkg runs. Run by `make deb` and, as ``--twice``, by `make release`.
"""

from __future__ import annotations

import argparse
import email.utils
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import wheel

DEBIAN = Path(__file__).resolve().parent / "debian"
HOME = Path("usr/lib/headrace")
PYTHON = "/usr/bin/python3"
MAINTAINER = "Headrace maintainers <maintainers@headrace.example>"
_CONTROL = """Package: headrace
Version: {version}
Architecture: {architecture}
Maintainer: {maintainer}
Installed-Size: {kilobytes}
Section: admin
Priority: optional
Depends: {depends}
Recommends: openssh-client
Suggests: gpg
Description: automation daemon that runs flows straight from git
 Headrace mirrors a git repository of Python files, watches it for changes,
 listens for webhooks and run requests, and executes flows: each pinned to
 its commit, each supervised, each recorded as JSON lines. Flows are durable:
 cut off at any moment, they go on where they were.
 .
 The package brings the Python packages it needs, and those of its tasks.
"""
_COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: headrace

Files: *
Copyright: the authors of Headrace
License: Apache-2.0
 On Debian systems the full text is in /usr/share/common-licenses/Apache-2.0.
Comment: the Python packages in /usr/lib/headrace have licences of their own,
 in the *.dist-info folder beside each:
"""


def build(made: Path, tree: Path, into: Path, version: str = "", *, quick: bool = False) -> Path:
    """Build the package around the wheel ``made`` and documents of ``tree``; return where it lies in ``into``.

    ``quick`` packs it less tightly, in a tenth of the time."""
    version = version or f"{made.name.split('-')[1]}-1"
    architecture = _said("dpkg", "--print-architecture")
    with tempfile.TemporaryDirectory(prefix="headrace-deb-") as folder:
        root = Path(folder, "root")
        root.mkdir(mode=0o755)
        python = make_environment(root, made)
        _compile(root, python)
        _documents(root, tree, python, version)
        _write(root / "etc/headrace/headrace.toml", (DEBIAN / "headrace.toml").read_text())
        control = _CONTROL.format(
            version=version,
            architecture=architecture,
            maintainer=_maintainer(),
            kilobytes=sum(path.lstat().st_size for path in root.rglob("*")) // 1024,
            depends=", ".join(_depends(root)),
        )
        _control_files(root, control)
        for path in root.rglob("*"):
            os.utime(path, (_made_at(), _made_at()), follow_symlinks=False)
        into.mkdir(parents=True, exist_ok=True)
        package = into / f"headrace_{version}_{architecture}.deb"
        packing = ["-Zgzip", "-z1"] if quick else ["-Zxz", "-z6"]
        subprocess.run(["dpkg-deb", *packing, "--root-owner-group", "--build", str(root), str(package)], check=True)
    return package


def make_environment(root: Path, made: Path) -> Path:
    """Make the environment below ``root`` and return its Python. What it holds does not know that it was made here."""
    home = root / HOME
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", str(home)], check=True)
    python = home / "bin" / "python3"
    command = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet", "--no-config", "--system-certs"]
    command += ["--python", str(python), "--link-mode", "copy", "--no-deps"]
    requirements = ["--require-hashes", "--requirements", str(wheel.ROOT / "release" / "requirements.txt")]
    for what in (requirements, [str(made)]):
        if subprocess.run([*command, *what]).returncode:
            raise SystemExit("packages cannot be installed: what uv said stands above")
    settings = (home / "pyvenv.cfg").read_text().splitlines()
    (home / "pyvenv.cfg").write_text("\n".join(s for s in settings if not s.startswith("command")) + "\n")
    for path in (home / "bin").iterdir():
        if path.name not in ("headrace", "uv") and not path.name.startswith("python"):
            path.unlink()
    (home / ".lock").unlink(missing_ok=True)  # uv's
    shutil.rmtree(home / "include")
    script = home / "bin" / "headrace"
    script.write_text(re.sub(r"\A#!.*", f"#!/{HOME}/bin/python3", script.read_text()))
    for path in (home / "lib").rglob("*.so*"):
        path.chmod(0o644)
    for path in home.rglob("*.dist-info"):
        gone = [path / name for name in ("direct_url.json", "uv_cache.json", "INSTALLER", "REQUESTED", "RECORD")]
        for one in gone:
            one.unlink(missing_ok=True)
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/headrace").symlink_to(f"../lib/{HOME.name}/bin/headrace")
    return python


def _compile(root: Path, python: Path) -> None:
    """Compile every module. Tracebacks name where they will be; sources are not looked at again."""
    options = ["-qq", "--invalidation-mode", "unchecked-hash", "-s", str(root), "-p", "/"]
    for path in (root / HOME).rglob("__pycache__"):
        shutil.rmtree(path)
    subprocess.run([str(python), "-m", "compileall", *options, str(root / HOME / "lib")])  # templates are no modules


def _documents(root: Path, tree: Path, python: Path, version: str) -> None:
    """Put in what the installed headrace says of itself, and what Debian wants every package to have."""

    def said(*words: str) -> str:
        told = _said(str(python), *words, cwd=root)
        return told.replace(str(root / HOME), f"/{HOME}") + "\n"

    share, verb = root / "usr/share", ("-m", "headrace")
    units = root / "lib/systemd/system"
    _write(units / "headrace.service", said(*verb, "unit"))
    _write(units / "headrace.socket", said(*verb, "unit", "--socket"))
    _write(share / "bash-completion/completions/headrace", said(*verb, "completion", "bash"))
    _write(share / "zsh/vendor-completions/_headrace", said(*verb, "completion", "zsh"))
    _write(share / "fish/vendor_completions.d/headrace.fish", said(*verb, "completion", "fish"))
    _pack(share / "man/man1/headrace.1.gz", said("-m", "headrace.daemon.cli.man_page"))
    documents = share / "doc/headrace"
    _write(documents / "copyright", _COPYRIGHT + "".join(f" {line}\n" for line in _licences(root)))
    _pack(documents / "changelog.gz", (tree / "CHANGELOG.md").read_text())
    at = email.utils.formatdate(_made_at())
    entry = f"headrace ({version}) unstable; urgency=medium\n\n  * Built from its repository; see changelog.gz.\n\n"
    _pack(documents / "changelog.Debian.gz", f"{entry} -- {_maintainer()}  {at}\n")
    for page in sorted((tree / "docs").glob("*.md")):
        _write(documents / "docs" / page.name, page.read_text())
    _write(share / "lintian/overrides/headrace", (DEBIAN / "lintian-overrides").read_text())


def _depends(root: Path) -> Iterator[str]:
    """What must be there: this minor version of Python, and a C library that the wheels were built for."""
    (library,) = (root / HOME / "lib").glob("python3.*")
    minor = int(library.name.partition(".")[2])
    yield f"python3 (>= 3.{minor}~), python3 (<< 3.{minor + 1}~)"
    tags = "\n".join(path.read_text() for path in library.glob("site-packages/*.dist-info/WHEEL"))
    wanted = [int(number) for number in re.findall(r"manylinux_2_(\d+)_", tags)]
    yield f"libc6 (>= 2.{max(wanted, default=17)})"
    yield from ("libgcc-s1", "adduser", "ca-certificates", "git", "init-system-helpers (>= 1.54~)")


def _licences(root: Path) -> Iterator[str]:
    for path in sorted((root / HOME).rglob("*.dist-info/METADATA")):
        told = email.message_from_string(path.read_text(errors="replace").partition("\n\n")[0])
        named = told["License-Expression"] or (told["License"] or "").partition("\n")[0][:60]
        classified = [c.rpartition(":: ")[2] for c in told.get_all("Classifier", []) if c.startswith("License ::")]
        yield f"{told['Name']} {told['Version']}: {named or ', '.join(classified) or 'see there'}"


def _control_files(root: Path, control: str) -> None:
    folder = root / "DEBIAN"
    _write(folder / "control", control)
    _write(folder / "conffiles", "/etc/headrace/headrace.toml\n")
    for name in ("postinst", "prerm", "postrm"):
        shutil.copyfile(DEBIAN / name, folder / name)
        (folder / name).chmod(0o755)
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    sums = ((path.relative_to(root), hashlib.md5(path.read_bytes(), usedforsecurity=False)) for path in files)
    _write(
        folder / "md5sums", "".join(f"{s.hexdigest()}  {p}\n" for p, s in sums if p.parts[0] not in ("DEBIAN", "etc"))
    )


def difference(one: Path, other: Path) -> str:
    """Return in what two packages differ; empty if they are the same bytes."""
    if one.read_bytes() == other.read_bytes():
        return ""
    with tempfile.TemporaryDirectory(prefix="headrace-deb-") as folder:
        held = []
        for number, package in enumerate((one, other)):
            root = Path(folder, str(number))
            subprocess.run(["dpkg-deb", "--raw-extract", str(package), str(root)], check=True)
            held.append({path.relative_to(root): _looks(path) for path in root.rglob("*")})
        left, right = held
        if names := sorted(str(name) for name in left.keys() | right.keys() if left.get(name) != right.get(name)):
            return ", ".join(names[:20])
    return "order or compression"


def _looks(path: Path) -> tuple[int, int, bytes]:
    """Return mode, time and content of a file, of a link where it leads."""
    status = path.lstat()
    content = str(path.readlink()).encode() if path.is_symlink() else b"" if path.is_dir() else path.read_bytes()
    return status.st_mode, int(status.st_mtime), content


def _made_at() -> int:
    return int(os.environ["SOURCE_DATE_EPOCH"])


def _maintainer() -> str:
    """Return who says that the package is theirs, as Debian's own programs ask it."""
    given = os.environ.get("DEBEMAIL", "")
    return f"{os.environ.get('DEBFULLNAME', given)} <{given}>" if given else MAINTAINER


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _pack(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def _said(*command: str, cwd: Path | None = None) -> str:
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.rstrip("\n")


def main() -> None:
    """Build the wheel, then the package around it; with ``--twice`` build in two ways and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("into", type=Path, help="the folder for the package")
    parser.add_argument("--commit", default="HEAD", help="what to build (HEAD)")
    parser.add_argument("--version", default="", help="the package's version, if not the wheel's with -1")
    parser.add_argument("--quick", action="store_true", help="pack it less tightly")
    parser.add_argument("--twice", action="store_true", help="build again elsewhere and compare the bytes")
    given = parser.parse_args()
    os.umask(0o022)
    os.environ["SOURCE_DATE_EPOCH"] = str(wheel.commit_time(wheel.ROOT, given.commit))

    def built(into: Path) -> Path:
        made = wheel.build(wheel.ROOT, into, given.commit)
        with wheel.exported(wheel.ROOT, given.commit) as tree:
            return build(made.resolve(), tree, into, given.version, quick=given.quick)

    package = built(given.into)
    if given.twice:
        os.environ.update(TZ="Pacific/Apia", LC_ALL="C", PYTHONHASHSEED="7")
        with tempfile.TemporaryDirectory() as folder:
            if found := difference(package, built(Path(folder) / "elsewhere")):
                raise SystemExit(f"{package.name} is not reproducible: two builds differ in {found}")
    print(package)


if __name__ == "__main__":
    main()
