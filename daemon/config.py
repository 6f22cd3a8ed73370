"""The daemon's settings: one table of rows, the fields of ``Configuration``, and how their values are found.

A later layer wins: defaults, ``$STATE_DIRECTORY``, ``headrace.toml``, ``HEADRACE_SECTION__KEY``, the command line.
``load`` is a function of what it is given; every problem is reported in one ``ConfigurationInvalid``, an unknown key
is refused with the nearest one that exists, and each value remembers where it came from (``Configuration.printed``).

Called by the command line (``up``) and by tests; the daemon's rooms get plain values from it and never see the
environment. ``python -m headrace.daemon.config`` prints the table that ``docs/configuration.md`` holds.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..engine import errors
from ..sync import environments, forge, source, verification
from ..tasks import local
from . import commit_statuses, front, oidc, pushes, tracing, written
from . import setting_kinds as kinds

ENV_PREFIX = "HEADRACE_"


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One setting: key, default as one would write it (None: must be given), what it may be, what it does."""

    key: str
    default: str | int | bool | None
    kind: kinds.Kind
    help: str
    live: bool = False  # a reload takes it; else it needs a restart

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return ENV_PREFIX + self.key.upper().replace(".", "__")


def _setting(
    key: str,
    default: str | int | bool | None,
    kind: kinds.Kind,
    help: str,  # noqa: A002 - a table's column
    *,
    live: bool = False,
) -> Any:
    return dataclasses.field(metadata={"row": Row(key, default, kind, help, live)})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Every setting with its value. Made by ``load`` alone, so that a value here is known to be good."""

    source_url: str = _setting(
        "source.url",
        None,
        kinds.SOURCE,
        "where flows come from: a git URL (https, ssh, file), or a directory or working tree on this machine",
    )
    source_ref: str = _setting(
        "source.ref", "HEAD", kinds.TEXT, "branch, tag or commit; HEAD is the source's default branch"
    )
    source_path: str = _setting("source.path", "", kinds.SUBFOLDER, "subfolder of the source that holds flows")
    source_poll_s: float = _setting(
        "source.poll", "30s", kinds.duration(1, 86400, or_zero=True), "how often to look for new commits; 0 is never"
    )
    source_policy: str = _setting(
        "source.policy",
        "per-flow",
        kinds.one_of("per-flow", "strict"),
        "a broken file keeps back that flow alone (per-flow) or the whole commit (strict)",
    )
    source_ssh_key: str = _setting(
        "source.ssh_key", "", kinds.FILE, "private key for ssh; empty: what ssh finds by itself"
    )
    source_known_hosts: str = _setting(
        "source.known_hosts", "", kinds.FILE, "host keys for ssh; empty: the user's known_hosts"
    )
    source_token_file: str = _setting("source.token_file", "", kinds.FILE, "file with the token or password for https")
    source_user: str = _setting("source.user", "git", kinds.TEXT, "user name sent along with the token")
    source_github_app: forge.GithubApp | None = _setting(  # noqa: RUF009 - as below
        "source.github_app", "", kinds.table(forge.GithubApp), "the GitHub App that gets in, instead of a token"
    )
    source_write_back: bool = _setting(
        "source.write_back",
        True,
        kinds.YES_OR_NO,
        "people and flows may change flows: each change becomes a commit of the source",
    )
    source_verify: verification.Verify | None = _setting(  # noqa: RUF009 - as below
        "source.verify", "none", kinds.table(verification.Verify, none="none"), "commits must be signed by one of these"
    )
    source_preview: source.Preview | None = _setting(  # noqa: RUF009 - as below
        "source.preview", "", kinds.table(source.Preview), "branches and tags that flows may be run from unmerged"
    )
    source_push: pushes.Push | None = _setting(  # noqa: RUF009 - as below
        *("source.push", "", kinds.table(pushes.Push), "a forge's push events are believed, signed with this secret"),
        live=True,
    )
    source_statuses: commit_statuses.Statuses | None = _setting(  # noqa: RUF009 - as below
        "source.statuses", "", kinds.table(commit_statuses.Statuses), "a forge is told what became of each commit"
    )
    source_folders: Mapping[str, str] = _setting(
        "source.folders",
        "",
        kinds.FOLDERS,
        "other names of the folders that declare settings, files, connections, webhooks, schedules, vault_configs",
    )
    listen_address: written.Address = _setting(  # noqa: RUF009 - it is dataclasses.field under another name
        "listen.address", "127.0.0.1:8420", kinds.ADDRESS, "where HTTP is served; port 0 is any"
    )
    listen_behind_proxy: bool = _setting(
        "listen.behind_proxy",
        False,
        kinds.YES_OR_NO,
        "a proxy that ends TLS stands in front; allows an address other machines can reach",
    )
    access_oidc: oidc.Oidc | None = _setting(  # noqa: RUF009 - as above
        "access.oidc", "", kinds.table(oidc.Oidc), "an OpenID provider that logs people in, and what its groups may do"
    )
    access_proxy: front.Proxy | None = _setting(  # noqa: RUF009 - as above
        "access.proxy", "", kinds.table(front.Proxy), "the proxy in front, and the people it has recognised"
    )
    run_max_running: int = _setting(
        *("run.max_running", 32, kinds.count(1, 10_000), "flow processes at a time; more executions wait, QUEUED"),
        live=True,
    )
    run_cancel_grace_s: float = _setting(
        "run.cancel_grace",
        "10s",
        kinds.duration(0, 3600),
        "how long a cancelled flow may take to leave before it is killed",
        live=True,
    )
    run_hibernate_after_s: float = _setting(
        "run.hibernate_after",
        "15s",
        kinds.duration(0, 86400, or_zero=True),
        "how long an execution keeps its process while it waits; then it is replayed when it goes on",
        live=True,
    )
    run_stop_grace_s: float = _setting(
        *("run.stop_grace", "20s", kinds.duration(0, 3600), "how long running flows may go on while the daemon stops"),
        live=True,
    )
    run_environments: environments.Packages | None = _setting(  # noqa: RUF009 - as above
        "run.environments", "", kinds.table(environments.Packages), "where the packages that flows depend on come from"
    )
    tasks_public_only: bool = _setting(
        "tasks.public_only",
        False,
        kinds.YES_OR_NO,
        "Tasks connect to public addresses only, never to this machine or the network it stands in",
    )
    tasks_local: local.Local | None = _setting(  # noqa: RUF009 - as above
        "tasks.local",
        "",
        kinds.table(local.Local),
        "what of this machine tasks may use: `programs` for COMMAND, ANSIBLE and TERRAFORM, `sockets` for DOCKER",
    )
    records_keep_s: float = _setting(
        "records.keep",
        "30d",
        kinds.duration(60, 100 * 365 * 86400, or_zero=True),
        "how long executions are kept after their end, unless their flow says otherwise; 0 is for ever",
        live=True,
    )
    identity_workspace: str = _setting(
        "identity.workspace", "headrace", kinds.NAME, "what flows learn from get_own_workspace().get('name')"
    )
    identity_environment: str = _setting(
        "identity.environment", "", kinds.NAME, "what flows learn from get_env_name(), such as production"
    )
    secrets_age_identity: str = _setting(
        "secrets.age_identity",
        "",
        kinds.FILE,
        "identity that decrypts secrets/*.age of the repository; empty: the credential age-identity",
    )
    state_directory: Path = _setting(  # noqa: RUF009 - as above
        "state.directory", written.STATE_DIRECTORY, kinds.DIRECTORY, "where everything the daemon keeps lies"
    )
    log_format: str = _setting(
        "log.format",
        "auto",
        kinds.one_of("auto", "json", "console", "journald"),
        "auto: for people on a terminal, fields for journald where stderr is its, else JSON lines",
        live=True,
    )
    log_level: str = _setting(
        "log.level",
        "info",
        kinds.one_of(*written.LEVELS),
        "the least severe lines that are written",
        live=True,
    )
    traces_export: tracing.Export | None = _setting(  # noqa: RUF009 - as above
        "traces.export", "", kinds.table(tracing.Export), "spans of executions and calls are sent to a collector (OTLP)"
    )
    traces_link: tracing.Link | None = _setting(  # noqa: RUF009 - as above
        "traces.link", "", kinds.table(tracing.Link), "where people see traces: `url` with {trace} in it"
    )
    origins: Mapping[str, str]
    #: What the names of this source's flows begin with; empty for the only one, and the first of several.
    source_prefix: str = ""
    #: Of several sources those with a prefix: their prefix, and their ``source.…`` by field.
    others: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    #: The credential ``tls``: certificate chain and private key in one PEM file; empty if there is none.
    tls: str = ""
    #: The credential ``oidc-client-secret`` likewise.
    oidc_client_secret: str = ""
    #: The credential ``push-secret`` likewise.
    push_secret: str = ""

    @property
    def is_private(self) -> bool:
        """Whether only this machine can reach the daemon. Behind a proxy the whole world arrives from loopback."""
        return self.listen_address.loopback and not self.listen_behind_proxy

    def each_source(self) -> list[Configuration]:
        """Return these settings once for each source, with ``source_…`` being that one's."""
        others = [dataclasses.replace(self, source_prefix=prefix, **values) for prefix, values in self.others]
        return [self, *others]

    def taking(self, wanted: Configuration) -> tuple[Configuration, list[str], list[str]]:
        """Return these settings with what a reload takes of ``wanted``, which keys that changes, and which it cannot.

        Of a source with a prefix the key has that behind it: ``source.ref (team)``."""
        differing = [(name, row) for name, row in _rows() if getattr(self, name) != getattr(wanted, name)]
        taken = {name: getattr(wanted, name) for name, row in differing if row.live}
        changed, kept = _told(differing)
        for name, credential in _CREDENTIALS.items():
            if getattr(self, name) != getattr(wanted, name):
                kept.append(f"the credential {credential}")
        ours, theirs = dict(self.others), dict(wanted.others)
        if list(ours) != list(theirs):
            kept.append("source")
        others = []
        for prefix, values in self.others:
            told = theirs.get(prefix, values)
            other = [(name, row) for name, row in _rows() if name in values and values[name] != told[name]]
            others.append((prefix, {**values, **{name: told[name] for name, row in other if row.live}}))
            for mine, more in zip((changed, kept), _told(other, f" ({prefix})"), strict=True):
                mine += more
        return dataclasses.replace(self, **taken, others=tuple(others)), changed, kept

    def printed(self) -> str:
        """Return the settings as TOML, each with its origin as a comment; credentials are unreadable."""
        lines: list[str] = []
        section = ""
        for name, row in _rows():
            here = row.key.partition(".")[0]
            if here != section:
                title = "[[source]]" if here == "source" and self.others else f"[{here}]"
                lines += self._printed_others() if section == "source" else []
                lines += ["", title] if lines else [title]
                section = here
            lines.append(self._printed(row, getattr(self, name), self.origins[row.key]))
        return "\n".join(lines) + "\n"

    def _printed_others(self) -> Iterator[str]:
        for prefix, values in self.others:
            yield from ("", "[[source]]", f"prefix = {json.dumps(prefix)}")
            yield from (self._printed(row, values[name], prefix) for name, row in _rows() if name in values)

    @staticmethod
    def _printed(row: Row, value: Any, origin: str) -> str:
        shown = json.dumps(row.kind.show(value), ensure_ascii=False)
        return f"{row.key.partition('.')[2] + ' = ' + shown:<44} # {origin}"


def _rows() -> Iterator[tuple[str, Row]]:
    return ((f.name, f.metadata["row"]) for f in dataclasses.fields(Configuration) if "row" in f.metadata)


def _told(rows: list[tuple[str, Row]], behind: str = "") -> tuple[list[str], list[str]]:
    """Return the keys of rows that a reload takes, and of those that it does not."""
    live = [row.key + behind for _, row in rows if row.live]
    return live, [row.key + behind for _, row in rows if not row.live]


#: What the service manager hands over, by field.
_CREDENTIALS = {"tls": "tls", "oidc_client_secret": "oidc-client-secret", "push_secret": "push-secret"}
#: The table, by key.
ROWS: Mapping[str, Row] = {row.key: row for _, row in _rows()}


def candidate_files(environ: Mapping[str, str]) -> list[Path]:
    """Return the places where ``headrace.toml`` is looked for, the first that exists counting."""
    home = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME", "/")) / ".config")
    return [Path("/etc/headrace/headrace.toml"), Path(home) / "headrace" / "headrace.toml"]


def load(flags: Mapping[str, object], environ: Mapping[str, str], files: Mapping[str, str]) -> Configuration:
    """Return the configuration, or raise ``ConfigurationInvalid`` naming everything that is wrong.

    ``flags`` maps keys to what the command line gave, ``files`` names to TOML texts (a later file wins)."""
    problems: list[str] = []
    found: dict[str, tuple[object, str]] = {k: (row.default, "default") for k, row in ROWS.items()}
    if environ.get("STATE_DIRECTORY"):
        found["state.directory"] = (written.state_directory(environ), "$STATE_DIRECTORY")
    others: list[_Other] = []
    for file, text in files.items():
        document = _read(file, text, problems)
        if isinstance(document.get("source"), list):
            document["source"], others = _several(file, document["source"], problems)
        found.update(_from_file(file, document, problems))
    found.update(_from_environment(environ, problems))
    found.update({key: (value, "command line") for key, value in flags.items()})
    values: dict[str, Any] = {}
    for name, row in _rows():
        value, origin = found[row.key]
        if value is None:
            problems.append(f"{row.key} is missing: {row.help}")
            continue
        try:
            values[name] = row.kind.parse(value)
        except ValueError as error:
            problems.append(f"{row.key} = {_quoted(value)} {error} ({origin})")
    parsed = tuple((other.prefix, _parsed(other, problems)) for other in others)
    secrets: dict[str, Any] = {field: _credential(environ, name) for field, name in _CREDENTIALS.items()}
    problems += _contradictions(values, has_tls=bool(secrets["tls"]))
    if problems:
        raise _invalid(problems)
    origins = {key: origin for key, (_, origin) in found.items()}
    return Configuration(**values, origins=origins, others=parsed, **secrets)


@dataclasses.dataclass(frozen=True, slots=True)
class _Other:
    """A source with a prefix as it is written in a file."""

    prefix: str
    file: str
    members: Mapping[str, object]


def _several(file: str, tables: list[Any], problems: list[str]) -> tuple[dict[str, object], list[_Other]]:
    """Return the one of several ``[[source]]`` that has no prefix, and the others."""
    first: list[dict[str, object]] = []
    others: list[_Other] = []
    for table in (dict(table) for table in tables if isinstance(table, dict)):
        prefix = table.pop("prefix", "")
        if not isinstance(prefix, str) or prefix in [other.prefix for other in others]:
            problems.append(f"prefix = {_quoted(prefix)} of a [[source]] in {file} must be text that no other has")
        elif prefix:
            others.append(_Other(prefix, file, table))
        else:
            first.append(table)
    if len(first) != 1:
        problems.append(f"of the [[source]] in {file} {len(first)} have no prefix, and exactly one must have none")
    return first[0] if first else {}, others


def _parsed(other: _Other, problems: list[str]) -> dict[str, Any]:
    """Return the settings of a source by field; what is not said is as usual."""
    where = f"[[source]] with prefix {other.prefix!r} in {other.file}"
    values: dict[str, Any] = {}
    rows = {row.key.removeprefix("source."): (name, row) for name, row in _rows() if row.key.startswith("source.")}
    unknown = sorted(other.members.keys() - rows.keys())
    problems += [f"{key} of {where} is not a setting{_nearest(key, rows)}" for key in unknown]
    for key, (name, row) in rows.items():
        value = other.members.get(key, row.default)
        if value is None:
            problems.append(f"{row.key} of {where} is missing: {row.help}")
            continue
        try:
            values[name] = row.kind.parse(value)
        except ValueError as error:
            problems.append(f"{row.key} = {_quoted(value)} {error} ({where})")
    return values


def _credential(environ: Mapping[str, str], name: str) -> str:
    """Return the file of a credential that the service manager hands over; empty if it hands over none."""
    folder = environ.get("CREDENTIALS_DIRECTORY", "")
    return str(Path(folder) / name) if folder and (Path(folder) / name).is_file() else ""


def _quoted(value: object) -> str:
    return written.without_credentials(json.dumps(value, ensure_ascii=False, default=str))


def _read(file: str, text: str, problems: list[str]) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problems.append(f"{file} is not valid TOML: {error}")
        return {}


def _from_file(file: str, document: Mapping[str, Any], problems: list[str]) -> Iterator[tuple[str, tuple[object, str]]]:
    for section, members in document.items():
        if isinstance(members, list):
            problems.append(f"[[{section}]] in {file}: several of them are not supported, write [{section}] once")
            continue
        for key, value in members.items() if isinstance(members, dict) else [("", members)]:
            path = f"{section}.{key}" if key else section
            if path in ROWS:
                yield path, (value, file)
            else:
                problems.append(f"{path} in {file} is not a setting{_nearest(path, ROWS)}")


def _from_environment(environ: Mapping[str, str], problems: list[str]) -> Iterator[tuple[str, tuple[object, str]]]:
    variables = {row.variable: key for key, row in ROWS.items()}
    squeezed = {name.replace("__", "_"): name for name in variables}
    for name, value in sorted(environ.items()):
        if name in variables:
            yield variables[name], (value, name)
        elif name in squeezed:  # one underscore too few would otherwise be ignored without a word
            problems.append(f"{name} in the environment is not a setting; did you mean {squeezed[name]}?")
        elif name.startswith(ENV_PREFIX) and "__" in name:
            problems.append(f"{name} in the environment is not a setting{_nearest(name, variables)}")


def _nearest(name: str, names: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _contradictions(values: Mapping[str, Any], *, has_tls: bool) -> Iterator[str]:
    """Yield what single values cannot show: settings that do not go together."""
    if values.get("source_url") == "":
        yield "source.url is empty: name a git URL or a directory"
    address = values.get("listen_address")
    if address is not None and not address.loopback and not has_tls and not values.get("listen_behind_proxy", True):
        yield (
            f"listen.address = {str(address)!r} can be reached from other machines and would serve them without TLS; "
            "keep it on 127.0.0.1, hand over a certificate as the credential `tls`, or put a proxy that ends TLS in "
            "front and set listen.behind_proxy = true"
        )

    if values.get("access_proxy") is not None and not values.get("listen_behind_proxy", True):
        yield "access.proxy tells of a proxy, and listen.behind_proxy says that there is none: set it to true"


def _invalid(problems: list[str]) -> errors.ConfigurationInvalid:
    count = "a setting cannot be used" if len(problems) == 1 else f"{len(problems)} settings cannot be used"
    listed = "\n".join(f"  - {problem}" for problem in problems)
    return errors.ConfigurationInvalid(
        f"{count}:\n{listed}",
        hint="docs/configuration.md lists every setting; `headrace up --print-config` shows yours",
    )


def table() -> str:
    """Return the settings as a Markdown table, for the documentation."""
    lines = ["| key | value | default | counts after | what it does |", "| --- | --- | --- | --- | --- |"]
    for key, row in ROWS.items():
        default = "must be given" if row.default is None else f"`{json.dumps(row.default)}`"
        kind = row.kind.name.replace("|", "\\|")
        lines.append(f"| `{key}` | {kind} | {default} | {'reload' if row.live else 'restart'} | {row.help} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())
