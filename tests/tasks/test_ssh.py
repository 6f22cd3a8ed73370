"""SSH, SCP and SFTP, with an sshd that runs."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import shlex
import signal
import subprocess
import uuid

import asyncssh
import pytest

from headrace.engine import errors
from headrace.tasks import remote_files, ssh, ssh_script
from tests.support import machines
from tests.support.machines import Machine


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    with machines.sshd(tmp_path_factory.mktemp("sshd") / "d") as running:
        yield running


@pytest.fixture
def run(call, machine: Machine):
    """Run a script there."""

    async def script(text: str, **inputs) -> dict:
        return await call("SSH", **{**machine.access, "script": text, **inputs})

    return script


@pytest.fixture
def failure():
    async def failed(coroutine) -> errors.TaskFailed:
        with pytest.raises(errors.TaskFailed) as raised:
            await coroutine
        return raised.value

    return failed


@pytest.fixture(autouse=True)
def nothing_is_left(machine: Machine):
    """Scripts lie in the machine's folder for temporary files while they run, and no longer."""
    yield
    assert list(machine.home.glob("headrace-*")) == []


# --- scripts


async def test_a_script_says_what_it_has_to_say(run):
    assert await run("echo one; echo two >&2; printf three") == {
        "retcode": 0,
        "report": "one\ntwo\nthree",
        "var": {},
    }


async def test_another_status_than_0_is_a_failure_that_shows_the_report(run, failure, machine):
    failed = await failure(run("echo before; false; echo after"))
    where = f"SSH {getpass.getuser()}@127.0.0.1:{machine.port}"
    assert failed.message == f"{where}: the script ended with 1: before"
    assert failed.output == b'{"retcode":1,"report":"before\\n","var":{}}'
    assert (await failure(run("exit 7"))).message == f"{where}: the script ended with 7, without a word"


async def test_variables_come_back_from_wherever_they_are_asked_for(run):
    text = """
        HOST='a "b" $c'
        #OUTPUT_VAR(HOST)
        for n in 1 2; do
            LAST=$n
            # OUTPUT_VAR(LAST)
        done
        LINES_=$'x\\ny'
        #OUTPUT_VAR(LINES_)
        echo "#OUTPUT_VAR(NOT_THIS)"
        #OUTPUT_VAR(NEVER)
        LATER=yes
    """
    output = await run(text, output_vars=["LATER", "HOST"])
    assert output["var"] == {"HOST": 'a "b" $c', "LAST": "2", "LINES_": "x\ny", "NEVER": None, "LATER": "yes"}
    assert output["report"] == "#OUTPUT_VAR(NOT_THIS)\n"


async def test_variables_of_a_script_that_fails_come_back_too(run, failure):
    assert b'"var":{"X":"1"}' in (await failure(run("X=1\n#OUTPUT_VAR(X)\nexit 3"))).output
    assert b'"retcode":4' in (await failure(run("X=1\n#OUTPUT_VAR(X)\n(exit 4)", interpreter="sh"))).output


async def test_the_interpreter_may_be_another(run):
    assert (await run("print(6 * 7)", interpreter="python3"))["report"] == "42\n"
    assert (await run('X=$0; [ -z "$BASH_VERSION" ]\n#OUTPUT_VAR(X)', interpreter="sh -e"))["var"]["X"]


async def test_a_script_of_100_kb_and_a_report_of_10_mb(run):
    padding = "\n".join(f": line {n} {'x' * 90}" for n in range(1000))
    output = await run(f"{padding}\nhead -c 10485760 /dev/zero | tr '\\0' a")
    assert len(padding) > 100_000 and output["report"] == "a" * 10485760


async def test_a_script_that_never_stops_writing_is_killed(run, failure, machine):
    mark = uuid.uuid4().hex
    failed = await failure(run(f"yes {mark}"))
    assert "the script wrote more than 32 MiB" in failed.message
    assert len(failed.output) < 1_200_000
    await gone(mark)


async def test_the_script_reads_nothing_and_may_leave_something_behind(run):
    """What is left may hold the output open: it is not waited for."""
    for background in ("setsid sleep 60 >/dev/null 2>&1", "sleep 60"):
        pid = int((await run(f"cat; {background} & echo $!"))["report"])
        os.kill(pid, signal.SIGKILL)


async def test_character_sets_and_escapes(run):
    text = "printf 'caf\\351 \\033[31mred\\033[0m\\r\\n'"
    assert (await run(text, encoding="latin-1"))["report"] == "café \x1b[31mred\x1b[0m\r\n"
    clean = await run(text, remove_ansi_escapes=True, remove_cr=True)
    assert clean["report"] == "caf� red\n"


async def test_files_are_copied_before_and_after(run, context, machine):
    given, made = machine.home / "given", machine.home / "made"
    context.files.root.mkdir()
    (context.files.root / "in.txt").write_text("hello")
    await run(
        f"tr a-z A-Z <{given} >{made}",
        copy_files=[{"src": "headrace:in.txt", "dst": str(given)}],
        output_files=[{"src": str(made), "dst": "headrace:sub/out.txt"}],
    )
    assert (context.files.root / "sub/out.txt").read_text() == "HELLO"


async def test_the_login_shell_may_run_it_line_by_line(run):
    output = await run("echo line one\ncd /\npwd", use_shell=True)
    assert output["retcode"] == 0 and output["report"].endswith("line one\n/\n")


async def test_a_place_for_the_script_that_is_not_there(run, failure):
    assert "cannot put the script there: mktemp: " in (await failure(run("true", temp_path="/not/there"))).message


async def test_the_trace_goes_along(run, context):
    context.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert (await run("echo $TRACEPARENT"))["report"].strip() == context.traceparent


# --- its end


async def there(mark: str) -> None:
    while not machines.processes_with(mark):
        await asyncio.sleep(0.01)


async def gone(mark: str) -> None:
    while machines.processes_with(mark):
        await asyncio.sleep(0.01)


def sleeping(mark: str) -> str:
    """A script that would go on for minutes, with a process in a pipe and one in the background."""
    return f"sh -c 'sleep 300; echo {mark}' & sh -c 'sleep 300; echo {mark}' | cat; echo {mark}"


async def test_cancelled_nothing_of_it_goes_on_there(run, machine):
    mark = uuid.uuid4().hex
    work = asyncio.create_task(run(sleeping(mark)))
    await there(mark)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert machines.processes_with(mark) == []  # gone when the task is, not some time later
    while machines.connections_of(machine.process):
        await asyncio.sleep(0.01)


async def test_out_of_time_it_is_killed(run, failure, machine):
    mark = uuid.uuid4().hex
    failed = await failure(run(f"echo begun; {sleeping(mark)}", script_timeout=0.7))
    assert failed.message.endswith("the script did not end within 0.7 s")
    assert b'"report":"begun\\n"' in failed.output
    assert machines.processes_with(mark) == []


async def test_when_the_connection_is_cut_the_machine_ends_it_itself(run, failure, machine):
    mark = uuid.uuid4().hex
    work = asyncio.create_task(run(sleeping(mark)))
    await there(mark)
    for child in machines.connections_of(machine.process):
        machines.cut(child)
    said = (await failure(work)).message
    assert "the connection broke before the script ended" in said
    await gone(mark)


# --- the way in


async def test_a_host_key_that_does_not_match_is_refused(call, failure, machine):
    other = asyncssh.import_private_key(machine.other_key).export_public_key().decode()
    for type_, more in (("SSH", {"script": "true"}), ("SFTP", {"command": "list", "path": "."})):
        failed = await failure(call(type_, **{**machine.access, "hostkey": other, **more}))
        assert failed.message.endswith("the server's host key is not the one that is expected")


@pytest.mark.parametrize("form", ["type key", "type key comment", "the bare base64"])
async def test_a_host_key_in_every_form(run, machine, form):
    kind, key, comment = machine.host_key.split()
    forms = {"type key": f"{kind} {key}", "type key comment": f"{kind} {key} {comment}", "the bare base64": key}
    assert (await run("echo in", hostkey=forms[form]))["report"] == "in\n"


async def test_without_a_host_key_the_user_s_known_hosts_count(run, failure, machine, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    said = (await failure(run("true", hostkey=None))).message
    assert said.endswith("the server's host key is not among those that ~/.ssh/known_hosts has for it: 'hostkey'")
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/known_hosts").write_text(f"[127.0.0.1]:{machine.port} {machine.host_key}")
    assert (await run("echo in", hostkey=None))["report"] == "in\n"


async def test_keys_in_pem_and_keys_that_are_no_good(run, failure, machine, tmp_path):
    pem = (machine.home.parent / "pem").read_text()
    assert pem.startswith("-----BEGIN RSA PRIVATE KEY-----")
    assert (await run("echo in", key=pem))["report"] == "in\n"
    refused = await failure(run("true", key=machine.other_key))
    assert refused.message.endswith(f"the server refused the key of {getpass.getuser()}")
    broken = machine.key.replace("b3Blb", "xxxxx")
    assert "the input 'key' cannot be used: it is damaged" in (await failure(run("true", key=broken))).message
    for kind in ([], ["-m", "PEM", "-t", "rsa"]):
        locked = tmp_path / f"locked{len(kind)}"
        subprocess.run(["ssh-keygen", "-q", "-N", "a passphrase", "-f", str(locked), *kind], check=True)
        said = (await failure(run("true", key=locked.read_text()))).message
        assert "it is encrypted, expected one without a passphrase" in said


async def test_a_wrong_password_is_refused_and_not_shown(run, failure, context):
    failed = await failure(run("true", key=None, password="not-the-password"))
    assert failed.message.endswith(f"the server refused the password of {getpass.getuser()}")
    assert "not-the-password" not in failed.message + context.text


async def test_connecting_is_tried_again_the_script_is_not(call, failure, machine, pacing, context):
    port = machines.services.free_port()
    said = (await failure(call("SSH", **{**machine.access, "port": port, "script": "true"}))).message
    assert said.endswith(f"connection refused by 127.0.0.1:{port}") and pacing.pauses == [1.0, 2.0]
    await failure(call("SSH", **machine.access, script="exit 1", retry_backoff=True))
    assert pacing.pauses == [1.0, 2.0]


class _Lets(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == ("ada", "the-password")


async def test_a_password_lets_in(call, machine):
    async def answer(process) -> None:
        script = await process.stdin.readexactly(4)
        process.stdout.write(f"ran {script}")
        process.exit(0)

    host_key = asyncssh.generate_private_key("ssh-ed25519")
    serving = await asyncssh.create_server(_Lets, "127.0.0.1", 0, server_host_keys=[host_key], process_factory=answer)
    async with serving:
        known = host_key.export_public_key().decode()
        access = {"hostname": "127.0.0.1", "port": serving.get_port(), "username": "ada", "hostkey": known}
        output = await call("SSH", **access, password="the-password", script="true")
    assert output["report"] == "ran true"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"username": None}, "SSH needs the input 'username': the user to log in as"),
        ({"key": None}, "SSH needs the input 'key': the private key, or 'password'"),
        (
            {"key": "secret"},
            "SSH cannot use the input 'key': expected a private key, '-----BEGIN … PRIVATE KEY-----'",
        ),
        (
            {"hostkey": "x"},
            "SSH cannot use the input 'hostkey': expected 'type key', such as one line of ssh-keyscan without the host",
        ),
        ({"encoding": "x"}, "SSH cannot use the input 'encoding': expected the name of a character set, such as utf-8"),
        (
            {"encoding": "ascii", "script": "é"},
            "SSH cannot use the input 'script': it has characters that 'encoding' does not have",
        ),
        ({"interpreter": "'"}, "SSH cannot use the input 'interpreter': its quotes do not match"),
        ({"interpreter": " "}, "SSH cannot use the input 'interpreter': expected a command"),
        ({"output_vars": ["a b"]}, "SSH cannot use the input 'output_vars': expected names of shell variables"),
        (
            {"interpreter": "perl", "script": "#OUTPUT_VAR(X)"},
            "SSH cannot use the input 'output_vars': output variables are for scripts that a shell runs from a file, "
            "not with 'use_shell'",
        ),
        (
            {"copy_files": [{"src": "x", "dst": "y"}]},
            "SSH cannot use the input 'copy_files': expected headrace:<path> as 'src'",
        ),
        ({"script_timeout": 0}, "SSH cannot use the input 'script_timeout': expected a number > 0.0"),
    ],
)
async def test_inputs_of_ssh_that_cannot_be_used(run, inputs, message):
    with pytest.raises(errors.InputRefused) as refused:
        await run(inputs.pop("script", "true"), **inputs)
    assert refused.value.message == message


def test_a_script_is_never_repeated_and_its_limits_are_documented(tasks, machine):
    assert not tasks.prepare("SSH", b'{"hostname":"x","username":"u","password":"p","script":"true"}').idempotent
    assert shlex.split(ssh_script.command("sh 'a b'", None, 3, ""))[:3][:2] == ["exec", "sh"]
    assert ssh.REPORT_BYTES_MAX == 32 << 20


# --- servers that mean harm


@contextlib.asynccontextmanager
async def server(process_factory, lets=_Lets, **options):
    """An SSH server that lets everybody in; gives the inputs that reach it."""
    host_key = asyncssh.generate_private_key("ssh-ed25519")
    keys = {"server_host_keys": [host_key], "encoding": None}
    made = await asyncssh.create_server(lets, "127.0.0.1", 0, process_factory=process_factory, **keys, **options)
    async with made:
        known = host_key.export_public_key().decode()
        yield {
            "hostname": "127.0.0.1", "port": made.get_port(), "username": "ada", "password": "the-password",
            "hostkey": known, "retry_backoff": False,
        }  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"hello\n", "the server does not speak the protocol of scp"),
        (b"C0644 99999999999999999999999 x\n", "the server does not speak the protocol of scp"),
        (b"D0755 0 folder\n", "the server does not speak the protocol of scp"),
        (b"C0644 5 x\nab", "the connection broke"),
        (b"C0644 2 x\nab\2too late\n", "the server refused: too late"),
        (b"\1no such thing\n", "the server refused: no such thing"),
        (b"x" * 1_000_000, "the server does not speak the protocol of scp"),
        (b"C0644 99999999999 x\n" + b"z" * 100_000, "the connection broke"),
        (b"", "the server has no scp"),
    ],
    ids=range(9),
)
async def test_an_scp_that_lies_leaves_no_file(call, failure, context, sent, message):
    async def lie(process) -> None:
        process.stdout.write(sent)
        process.exit(0)

    async with server(lie) as access:
        assert message in (await failure(call("SCP", **access, src="x", dst="headrace:y"))).message
    assert context.files.names() == []


async def test_a_machine_that_talks_without_end_is_left(call, failure):
    ended = asyncio.Event()

    async def talk(process) -> None:
        try:
            while True:
                process.stderr.write(b"x" * 65536)
                await process.stderr.drain()
        finally:
            ended.set()

    async with server(talk) as access:
        assert "1 MiB of variables" in (await failure(call("SSH", **access, script="true"))).message
        await ended.wait()


async def test_a_machine_without_files_is_told(call, failure):
    async with server(lambda process: process.exit(0)) as access:
        said = (await failure(call("SFTP", **access, command="list", path="."))).message
    assert "the server does not transfer files" in said


async def _for_ever(stream, said: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):
        while True:
            stream.write(said)
            await stream.drain()
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("begun", "way"),
    [
        (b"C0644 99999999999 x\n", ("x", "headrace:y")),
        (b"", ("x", "headrace:y")),
        (b"\0\0\0", ("headrace:a", "x")),
        (b"\1", ("headrace:a", "x")),
    ],
    ids=["a file", "no line", "answers", "a refusal"],
)
async def test_an_scp_that_talks_without_end_is_left(call, context, monkeypatch, begun, way):
    monkeypatch.setattr(remote_files, "FILE_BYTES_MAX", 4 << 20)
    left = asyncio.Event()
    context.files.root.mkdir()
    (context.files.root / "a").write_bytes(b"x")

    async def talk(process) -> None:
        process.stdout.write(begun)
        await _for_ever(process.stdout, bytes(65536) if begun.startswith((b"C", b"\0")) else b"x" * 65536)
        left.set()

    async with server(talk) as access:
        with contextlib.suppress(errors.TaskFailed):
            await call("SCP", **access, src=way[0], dst=way[1])
        await left.wait()
    assert context.files.names() == ["a"]


async def test_an_scp_that_complains_without_end_is_left(call, failure):
    left = asyncio.Event()

    async def talk(process) -> None:
        await _for_ever(process.stderr, b"x" * 65536)
        left.set()

    async with server(talk) as access:
        said = (await failure(call("SCP", **access, src="x", dst="headrace:y"))).message
        assert "the server cannot copy: xxx" in said and len(said) < 1500
        await left.wait()


class _Files(asyncssh.SSHServerSession):
    """Speaks the protocol of files: answers each packet by its kind, or goes on for ever after one of the kind None."""

    def __init__(self, answers: dict[int, bytes | None], left: asyncio.Event) -> None:
        self._answers, self._left, self._room = answers, left, asyncio.Event()
        self._came = asyncio.StreamReader()
        self._room.set()

    def connection_made(self, chan) -> None:
        self._chan = chan

    def subsystem_requested(self, subsystem: str) -> bool:
        self._talking = asyncio.create_task(self._talk())
        return subsystem == "sftp"

    def data_received(self, data, datatype) -> None:
        self._came.feed_data(data)

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def connection_lost(self, exc) -> None:
        self._talking.cancel()
        self._left.set()

    async def _talk(self) -> None:
        while True:
            packet = await self._came.readexactly(int.from_bytes(await self._came.readexactly(4), "big"))
            said = self._answers.get(packet[0], b"\x65{id}" + bytes(12))
            if said is not None:
                self._chan.write(_text(said.replace(b"{id}", packet[1:5])))
            noise = b"x" * 65536 if packet[0] == 1 else _text(b"\x65" + bytes(16)) * 3000
            while said is None:
                self._chan.write(noise)
                await self._room.wait()
                await asyncio.sleep(0)


_VERSION = b"\x02" + (3).to_bytes(4, "big")


def _text(content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + content


@pytest.mark.parametrize(
    ("answers", "asked", "words"),
    [
        ({5: b"\x67" + b"{id}" + _text(bytes(262144))}, {"src": "x", "dst": "headrace:y"}, "the file is larger than"),
        ({12: b"\x68" + b"{id}" + (100).to_bytes(4, "big") + (_text(b"n") * 2 + bytes(4)) * 100},
         {"command": "list", "path": "."}, "the folder has more than 1,000 entries"),
        ({11: None}, {"command": "list", "path": "."}, ""),
        ({1: None}, {"command": "list", "path": "."}, ""),
    ],
    ids=["a file", "a folder", "answers to nothing", "no packets"],
)  # fmt: skip
async def test_an_sftp_server_that_talks_without_end_is_left(call, failure, monkeypatch, answers, asked, words):
    """It opens whatever it is asked for."""
    monkeypatch.setattr(remote_files, "FILE_BYTES_MAX", 4 << 20)
    monkeypatch.setattr(remote_files, "ENTRIES_MAX", 1000)
    left = asyncio.Event()
    known = {1: _VERSION, 3: b"\x66{id}" + _text(b"h"), 11: b"\x66{id}" + _text(b"h"), **answers}

    class LetsFiles(_Lets):
        def session_requested(self):
            return _Files(known, left)

    async with server(None, LetsFiles) as access:
        assert words in (await failure(call("SFTP", **access, **asked))).message
        await left.wait()


# --- files


@pytest.fixture(params=["SCP", "SFTP"])
def copy(call, machine, request):
    async def copied(src: str, dst: str, **more) -> dict:
        return await call(request.param, **{**machine.access, "src": src, "dst": dst, "retry_backoff": False, **more})

    return copied


async def test_a_file_goes_there_and_back(copy, context, machine):
    content = bytes(range(256)) * 5000 + b"end"
    context.files.root.mkdir()
    (context.files.root / "a.bin").write_bytes(content)
    far = machine.home / f"far {uuid.uuid4().hex} 'quoted'"
    assert await copy("headrace:a.bin", str(far)) == {"size": len(content)}
    assert far.read_bytes() == content
    assert await copy(str(far), "headrace:sub/b.bin") == {"size": len(content)}
    assert (context.files.root / "sub/b.bin").read_bytes() == content
    (context.files.root / "a.bin").write_bytes(b"")
    await copy("headrace:a.bin", str(far))
    assert far.read_bytes() == b"" and not list(machine.home.glob("*.headrace-part"))


async def test_a_file_that_is_not_there(copy, failure, context):
    assert "/not/there" in (await failure(copy("/not/there", "headrace:x"))).message
    assert context.files.names() == []
    assert "cannot read the file 'gone'" in (await failure(copy("headrace:gone", "/tmp/x"))).message


async def test_a_file_that_nobody_may_write(copy, failure, context):
    context.files.root.mkdir()
    (context.files.root / "a").write_bytes(b"x")
    assert (await failure(copy("headrace:a", "/proc/nothing"))).message


async def test_a_copy_that_is_cancelled_leaves_neither_file_nor_connection(copy, machine, context):
    with (machine.home / "endless").open("wb") as file:
        file.truncate(50 * 1024**3)  # without a byte on disk
    context.files.root.mkdir()
    work = asyncio.create_task(copy(str(machine.home / "endless"), "headrace:x"))
    while not list(context.files.root.iterdir()):
        await asyncio.sleep(0.01)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert context.files.names() == []
    while machines.connections_of(machine.process):
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(("src", "dst"), [("a", "b"), ("headrace:a", "headrace:b")])
async def test_one_side_of_a_copy_is_a_kept_file(copy, src, dst):
    with pytest.raises(errors.InputRefused, match="expected headrace:<path> either as 'src' or as 'dst'"):
        await copy(src, dst)


async def test_the_files_of_a_server_are_listed_and_changed(call, machine, failure):
    folder = machine.home / uuid.uuid4().hex

    async def sftp(command: str, path=folder, **more) -> dict:
        return await call("SFTP", **machine.access, command=command, path=str(path), retry_backoff=False, **more)

    assert await sftp("mkdir") == {}
    (folder / "b").write_text("12")
    (folder / "a").symlink_to("b")
    (folder / "c").mkdir()
    entries = (await sftp("list"))["entries"]
    assert [(one["name"], one["type"]) for one in entries] == [("a", "link"), ("b", "file"), ("c", "folder")]
    assert entries[1]["size"] == 2 and abs(entries[1]["modified"] - (folder / "b").stat().st_mtime) < 2
    await sftp("rename", folder / "b", new_path=str(folder / "d"))
    assert (await sftp("stat", folder / "d"))["entry"]["size"] == 2
    for name in ("a", "c", "d"):
        await sftp("remove", folder / name)
    assert (await sftp("list"))["entries"] == []
    assert f"there is no '{folder}/x' on the server" in (await failure(sftp("remove", folder / "x"))).message
    assert f"the server cannot do it for '{folder}'" in (await failure(sftp("mkdir"))).message


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"command": "list"}, "SFTP needs the input 'path': the command list is about it"),
        ({"command": "rename", "path": "a"}, "SFTP needs the input 'new_path': the command rename is about it"),
        ({"src": "headrace:x"}, "SFTP needs the input 'dst': the command copy is about it"),
        (
            {"command": "stat", "path": "a", "src": "b"},
            "SFTP cannot use the input 'src': the command stat does not use it",
        ),
        ({"command": "stat", "path": "a\nb"}, "SFTP cannot use the input 'path': it contains a control character"),
    ],
)
async def test_inputs_of_sftp_that_cannot_be_used(call, machine, inputs, message):
    with pytest.raises(errors.InputRefused) as refused:
        await call("SFTP", **machine.access, **inputs)
    assert refused.value.message == message


def test_copies_may_be_repeated_changes_may_not(tasks):
    who = '"hostname":"x","username":"u","password":"p"'
    assert tasks.prepare("SCP", f'{{{who},"src":"headrace:a","dst":"b"}}'.encode()).idempotent
    for command, repeatable in {"list": True, "stat": True, "remove": False, "mkdir": False}.items():
        given = f'{{{who},"command":"{command}","path":"x"}}'.encode()
        assert tasks.prepare("SFTP", given).idempotent is repeatable
