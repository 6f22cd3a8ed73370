"""The law of the house, as tests. Each message names the better way.

The four rooms, their floors and who may look into whom; sizes; where third-party libraries live; that what people read
names everything there is.
"""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("daemon", "sync", "tasks", "engine")
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
TREES = {path: ast.parse(path.read_text(), str(path)) for path in FILES}
#: Parsed before any test ran: one that met the recursion limit can leave the parser unable to parse.
TESTS = {path: ast.parse(path.read_text(), str(path)) for path in sorted((ROOT / "tests").rglob("*.py"))}

#: What sync and tasks may see of the engine.
SEAM = {
    *("engine.cron", "engine.errors", "engine.events", "engine.model", "engine.moments", "engine.policy"),
    *("engine.ports", "engine.values", "engine.state.inputs"),
}
#: Floors of the engine: a module imports its own floor's package or lower ones only.
FLOORS = {
    "engine.guest": 0,
    "engine.durable": 0,
    "engine.errors": 0,
    "engine.ids": 0,
    "engine.traces": 0,
    "engine.cron": 1,
    "engine.policy": 1,
    "engine.scheduled": 1,
    "engine.upkeep": 1,
    "engine.lifecycle": 1,
    "engine.event": 1,
    "engine.carried": 1,
    "engine.events": 1,
    "engine.values": 1,
    "engine.model": 2,
    "engine.ports": 3,
    "engine.records": 4,
    "engine.state": 4,
    "engine.workers": 4,
    "engine.running": 5,
}
#: Third-party libraries and the modules that may know them; one not named here may be used anywhere but in the guest.
QUARANTINE = {
    "aiohttp": r"daemon\.(access|accounts|answers|api|assets|async_client|authoring|connections|health|login|\w+_pages)"
    r"|daemon\.(messages|openapi|pages|paging|records|retention|routes|runs|server|stream|templates|webhooks)"
    r"|daemon\.(bulk|commit_statuses|exports|flow_history|front|oidc|pushes|service|timetable|workers)"
    r"|tasks\.(docker|http|rest|vault).*",
    "cronsim": r"engine\.cron",
    "jinja2": r"daemon\.templates|tasks\.rendering",
    "prometheus_client": r"daemon\.metrics",
    "jsonschema_rs": r"engine\.state\.schemas",
    "uvloop": r"daemon\.app",
    "opentelemetry": r"daemon\.span_exporter",
    "requests": r"daemon\.span_exporter",
    "watchfiles": r"sync\.watch",
    "joserfc": r"daemon\.id_token|sync\.forge",
    "git": r"sync\.(git|mirror|working_tree|tree|remote|candidate)|tasks\.git.*",
    "gitdb": r"sync\.(git|mirror|tree)|tasks\.git.*",
    "click": r"daemon\.cli\..*",
    "rich": r"daemon\.cli\..*",
    "pytest": r"daemon\.testing\.plugin",
    "yaml": r"sync\..*|engine\.state\..*|daemon\.record_pages|tasks\.k8s_access",
    "ray": r"engine\.workers\.ray_driver",
    "cryptography": r"engine\.workers\.credentials",
    "pyrage": r"engine\.state\.age",
    "aiosmtplib": r"tasks\.smtp",
    "asyncssh": r"tasks\.(ssh|sftp_files|scp|ssh_connection)",
    "pymysql": r"tasks\.mysql",
    "aiokafka": r"tasks\.kafka",
    "pymongo": r"tasks\.mongo",
    "smbprotocol": r"tasks\.smb",
    "psycopg": r"tasks\.sqlpg",
    "zeep": r"tasks\.soap",
    "pysnmp": r"tasks\.snmp",
    "pypsrp": r"tasks\.ps_winrm",
    "sqlite3": r"engine\.(records|state)\..*|tasks\.sqlite",
}
#: Names that say nothing of what a module is.
NAMELESS = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc", "tools"}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> set[str]:
    """Absolute names of the modules a file imports, ours without the leading ``headrace``."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    found = set()
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("headrace.") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])]).removeprefix("headrace.")
            for alias in node.names:
                name = f"{base}.{alias.name}".lstrip(".")
                found.add(name if is_ours(name) else base or "headrace")
    return found


def is_ours(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return name.split(".")[0] in ROOMS and (path.is_dir() or path.with_suffix(".py").is_file())


IMPORTS = {module_name(path): imported(path) for path in FILES}


def floor(name: str) -> int | None:
    return next((level for prefix, level in FLOORS.items() if name == prefix or name.startswith(prefix + ".")), None)


def violations():
    for name, targets in IMPORTS.items():
        room = name.split(".")[0]
        for target in (t for t in targets if t.split(".")[0] in ROOMS):
            other = target.split(".")[0]
            if room == other:
                if room == "engine" and floor(name) is not None and (floor(target) or 0) > floor(name):
                    yield f"{name} looks up to {target}: let the upper floor call down, or put a port between"
                same = (floor(name), name.split(".")[1:2]) if room == "engine" else None
                if same and floor(target) == same[0] == 4 and target.split(".")[1:2] != same[1]:
                    yield f"{name} looks sideways into {target}: let engine.running bring them together"
            elif room == "engine":
                yield f"{name} imports {target}: the engine knows no other room, give it a port instead"
            elif room in ("sync", "tasks") and target not in SEAM:
                yield f"{name} imports {target}: sync and tasks see only {', '.join(sorted(SEAM))}"


def test_imports_run_from_daemon_over_sync_and_tasks_to_engine_and_never_back():
    assert list(violations()) == []


def test_no_module_of_ours_is_in_a_circle():
    seen, walking = set(), []

    def walk(name):
        if name in walking:
            raise AssertionError("a circle: " + " -> ".join([*walking[walking.index(name) :], name]))
        if name in seen or name not in IMPORTS:
            return
        walking.append(name)
        for target in sorted(IMPORTS[name]):
            walk(target)
        walking.pop()
        seen.add(name)

    for name in IMPORTS:
        walk(name)


def test_the_guest_imports_the_standard_library_and_itself_alone():
    allowed = sys.stdlib_module_names | {"engine"}
    for name, targets in IMPORTS.items():
        if name.startswith("engine.guest"):
            strangers = {t for t in targets if t.split(".")[0] not in allowed or t.startswith(("engine.",))}
            strangers = {t for t in strangers if not t.startswith("engine.guest")}
            assert not strangers, f"{name} imports {strangers}: it also runs where headrace is not installed"


def test_third_party_libraries_stay_in_their_quarantine():
    for name, targets in IMPORTS.items():
        for library in {t.split(".")[0] for t in targets} & QUARANTINE.keys():
            assert re.fullmatch(QUARANTINE[library], name), (
                f"{name} imports {library}: go through {QUARANTINE[library]}"
            )


def test_modules_are_nouns_of_reasonable_size():
    for path in FILES:
        lines = len(path.read_text().splitlines())
        assert lines <= 500, f"{path.name} has {lines} lines: split it by noun"
        assert path.stem not in NAMELESS, f"{path}: name it for what it holds"


def test_functions_fit_on_a_screen():
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = node.end_lineno - node.lineno + 1
                assert length <= 70, f"{path.name}:{node.lineno} {node.name} has {length} lines"


def test_every_module_says_what_it_is():
    for path, tree in TREES.items():
        assert ast.get_docstring(tree), f"{path} has no docstring: say what it owns, refuses, and who calls it"


def test_imports_stand_at_the_top_but_for_the_marked_places():
    lazy = []
    for path, tree in TREES.items():
        for function in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)):
            lazy += [module_name(path) for n in ast.walk(function) if isinstance(n, ast.Import | ast.ImportFrom)]
    allowed = {
        "daemon.cli.render",
        "daemon.cli.up",
        "daemon.cli.options",
        "daemon.cli.backup",
    }  # a quick command line; see there
    allowed |= {"engine.state.age", "daemon.id_token", "sync.forge"}  # extras
    allowed |= {"engine.workers.credentials", "engine.workers.ray_driver"}  # the same, and what runs on nodes
    allowed |= {"tasks.registry"}  # a quick start of the daemon
    allowed |= {"daemon.templates", "engine.state.schemas", "sync.metadata", "sync.requirements"}  # a small one
    allowed |= {"sync.compile_flows"}  # a quick check at each push
    allowed |= {"engine.guest.run"}  # a small fork server: its pages are copied for each process
    allowed |= {"daemon.testing.plugin"}  # loaded by every run of pytest beside it
    assert set(lazy) <= allowed, "an import inside a function hides a circle: bring the modules in order instead"


def test_values_are_structs_where_msgspec_is_at_hand():
    without = ("engine.guest.", "daemon.cli.", "daemon.testing.")  # they run, or start quickly, without it
    without += (
        "daemon.written",
        "daemon.endpoint",
        "daemon.config",
    )  # the same; and settings, whose fields are a table
    for path, tree in TREES.items():
        if not module_name(path).startswith(without):
            names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
            assert "dataclasses" not in names, f"{path}: make it a msgspec.Struct, a dataclass slows each start"


def test_broad_excepts_stand_only_at_the_seams():
    seams = {"daemon.routes", "engine.running.dispatcher", "sync.loop", "engine.guest.run", "engine.guest.fork_server"}
    seams |= {"engine.workers.ray_driver"}  # Ray raises whatever it likes
    for path, tree in TREES.items():
        for handler in (n for n in ast.walk(tree) if isinstance(n, ast.ExceptHandler)):
            names = {n.id for n in ast.walk(handler.type) if isinstance(n, ast.Name)} if handler.type else {"Exception"}
            reraises = any(isinstance(n, ast.Raise) for n in ast.walk(handler))
            if names & {"Exception", "BaseException"} and not reraises:
                assert module_name(path) in seams, f"{path.name}:{handler.lineno}: name what can happen instead"


def test_tests_use_no_mock_library():
    for path, tree in TESTS.items():
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = getattr(node, "module", "") or ""
            assert "mock" not in f"{module} {' '.join(names)}".split(".")[0:2], (
                f"{path}: use the real thing or the one fake"
            )


@pytest.mark.parametrize(("document", "limit"), [("README.md", 150), ("ARCHITECTURE.md", 150)])
def test_first_documents_stay_short(document, limit):
    assert len((ROOT / document).read_text().splitlines()) <= limit


def test_the_packages_listed_are_those_that_exist():
    listed = set(re.findall(r'^  "(headrace[\w.]*)",$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    found = {"headrace"} | {f"headrace.{module_name(p)}" for p in FILES if p.name == "__init__.py"}
    assert listed == found
