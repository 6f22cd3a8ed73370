"""PS: over SSH with a real sshd and a stand-in for PowerShell that shows what arrives; by WinRM with a double.

There is no PowerShell to test with: what runs a script on a real machine is written after its documentation.
"""

from __future__ import annotations

import asyncio
import json
import pathlib
import sys

import pytest
from aiohttp import web

from headrace.engine import errors
from tests.support import machines, services, winrm_double
from tests.support.task_context import Context

SECRET = services.PASSWORD
#: Reads as PowerShell does with our command, and tells what it was given; it ends when its input does, like ours.
STAND_IN = r"""#!%s
import base64, json, os, re, sys, threading
text = base64.b64decode(sys.argv[-1]).decode("utf-16-le")
size = int(re.search(r"New-Object byte\[\] (\d+)", text)[1])
script = sys.stdin.buffer.read(size).decode()
def watch():
    sys.stdin.buffer.read()
    os._exit(99)
threading.Thread(target=watch, daemon=True).start()
if script.startswith("fail"):
    print("before\r\nit broke\r", flush=True)
    print("on the side", file=sys.stderr, flush=True)
    os._exit(int(script.split()[1]))
if script.startswith("wait"):
    print(script, flush=True)
    threading.Event().wait()
print(json.dumps({"flags": sys.argv[1:-1], "text": text, "script": script}), flush=True)
os._exit(0)
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    with machines.sshd(tmp_path_factory.mktemp("sshd") / "d") as running:
        stand_in = running.home / "powershell"
        stand_in.write_text(STAND_IN % sys.executable)
        stand_in.chmod(0o755)
        yield running


@pytest.fixture
def by_ssh(call, machine):
    async def run(script: str, **inputs) -> dict:
        return await call(
            "PS", **{**machine.access, "interpreter": f"{machine.home}/powershell", **inputs}, script=script
        )

    return run


@pytest.fixture
def failure(context: Context):
    async def failed(coroutine) -> errors.TaskFailed:
        with pytest.raises(errors.TaskFailed) as raised:
            await coroutine
        said = raised.value.message + raised.value.output.decode() + context.text
        assert SECRET not in said and "PRIVATE KEY" not in said and "\n" not in raised.value.message
        return raised.value

    return failed


# --- over SSH


@pytest.mark.parametrize(
    "script", ["Get-Date", "'ü' + \"€ $x\"\r\n{\n}\n#OUTPUT_VAR(X)", "", "x" * 300_000], ids=range(4)
)
async def test_the_script_arrives_as_it_is_and_not_in_the_command(by_ssh, script):
    told = (await by_ssh(script))["json"]
    assert told["script"] == script
    assert told["flags"] == ["-NoLogo", "-NoProfile", "-NonInteractive", "-OutputFormat", "Text", "-EncodedCommand"]
    assert "$ErrorActionPreference='Stop'" in told["text"] and "Stop-Process -Id $own" in told["text"]
    assert len(told["text"]) * 8 / 3 < 8191  # what the command line of Windows takes


async def test_the_report_and_its_json(by_ssh):
    output = await by_ssh("x")
    assert output["retcode"] == 0 and json.loads(output["report"]) == output["json"] and "\r" not in output["report"]


async def test_a_trace_goes_along(by_ssh, context):
    context.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert f"$env:TRACEPARENT='{context.traceparent}';" in (await by_ssh("x"))["json"]["text"]


async def test_an_error_is_a_failure_with_the_report(by_ssh, failure, machine):
    failed = await failure(by_ssh("fail 3"))
    assert failed.message.endswith(f"@127.0.0.1:{machine.port}: the script ended with 3: on the side")
    assert json.loads(failed.output) == {"retcode": 3, "report": "before\nit broke\non the side\n", "json": None}


async def test_a_script_that_takes_too_long_ends(by_ssh, failure, machine):
    failed = await failure(by_ssh("wait overlong", script_timeout=0.5))
    assert failed.message.endswith("the script did not end within 0.5 s")
    await gone(f"{machine.home}/powershell")


async def test_cancelled_the_script_ends(by_ssh, machine):
    work = asyncio.create_task(by_ssh("wait cancelled"))
    while not machines.processes_with(f"{machine.home}/powershell"):
        await asyncio.sleep(0.02)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    await gone(f"{machine.home}/powershell")


async def gone(text: str) -> None:
    while machines.processes_with(text):
        await asyncio.sleep(0.02)


async def test_a_machine_without_it_and_keys_that_do_not_fit(by_ssh, failure, machine):
    assert "the script ended with 127" in (await failure(by_ssh("x", interpreter="no-such-shell"))).message
    assert "refused the key" in (await failure(by_ssh("x", key=machine.other_key))).message
    assert "is not the one that is expected" in (await failure(by_ssh("x", hostkey=_other(machine)))).message


def _other(machine) -> str:
    return (pathlib.Path(machine.home.parent) / "other.pub").read_text()


# --- by WinRM


def says(script: str) -> winrm_double.Said:
    """What comes of a script, as its first word says."""
    match script.split()[0]:
        case "fail":
            return winrm_double.Said(["before"], error="it broke")
        case "loop":
            return winrm_double.Said(endless=True)
        case "pour":
            return winrm_double.Said(["x" * 1_000_000] * 4, endless=True)
    return winrm_double.Said(["[1,", "2]"])


@pytest.fixture
async def windows(serve, certs):
    """A double, how to get there, and what it saw."""
    double = winrm_double.Machine("app", SECRET, says)
    url = await serve(double.handle, tls=certs.server_context())
    double.port = int(url.rpartition(":")[2])
    return double


@pytest.fixture
async def by_winrm(call, windows, certs):
    async def run(script: str, **inputs) -> dict:
        access = {"hostname": "127.0.0.1", "port": windows.port, "username": "app", "password": SECRET}
        way = {"transport": "winrm", "authentication_method": "basic", "cacert": certs.text("ca.crt")}
        return await call("PS", **{**access, **way, **inputs}, script=script)

    yield run
    await asyncio.sleep(0.05)  # the server, on this loop, takes leave of who hung up


async def test_a_script_runs_in_a_runspace(by_winrm, windows):
    script = "Get-Item 'ü'\n{ }"
    assert await by_winrm(script) == {"retcode": None, "report": "[1,\n2]\n", "json": [1, 2]}
    ((wrapper, sent),) = windows.scripts
    assert sent == script and wrapper.startswith("param($headrace_script) $ErrorActionPreference='Stop';")
    assert windows.actions == ["Create", "Receive", "Command", "Receive", "Delete"]


async def test_every_address_of_a_name_is_tried(by_winrm):
    assert (await by_winrm("x", hostname="localhost", verify_ssl=False, cacert=None))["json"] == [1, 2]


async def test_a_long_script_arrives_in_pieces(by_winrm, windows):
    script = "x" * 400_000
    await by_winrm(script)
    assert windows.scripts[0][1] == script and "Send" in windows.actions


async def test_an_error_there_is_a_failure_with_the_report(by_winrm, failure):
    failed = await failure(by_winrm("fail"))
    assert failed.message.endswith("the script ended with an error: it broke")
    assert json.loads(failed.output)["report"] == "before\nit broke\n"


async def test_what_takes_too_long_is_stopped_at_the_machine(by_winrm, failure, windows):
    failed = await failure(by_winrm("loop", script_timeout=0.2))
    assert failed.message.endswith("the script did not end within 0.2 s")
    assert windows.actions[-2:] == ["Signal", "Delete"]


async def test_what_never_stops_writing_is_stopped_at_the_machine(by_winrm, failure, windows):
    failed = await failure(by_winrm("pour"))
    assert "the script wrote more than 32 Mi characters" in failed.message and len(failed.output) < 1_200_000
    assert windows.actions[-2:] == ["Signal", "Delete"]


async def test_cancelled_it_is_stopped_at_the_machine(by_winrm, windows):
    work = asyncio.create_task(by_winrm("loop"))
    await windows.running.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert windows.actions[-2:] == ["Signal", "Delete"]


async def test_who_is_not_let_in_and_a_certificate_nobody_vouches_for(by_winrm, failure, windows):
    refused = await failure(by_winrm("x", password="wrong-pass-word"))
    assert refused.message.endswith("the server refused the password of app")
    assert "is not trusted" in (await failure(by_winrm("x", cacert=None))).message
    assert (await by_winrm("x", cacert=None, verify_ssl=False))["report"] and len(windows.scripts) == 1
    assert "refused the password" in (await failure(by_winrm("x", authentication_method="ntlm"))).message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<!DOCTYPE x [<!ENTITY a 'a'>]><x>&a;</x>", "the answer declares a document type: it is not read"),
        (b"nonsense", "what the server says is not understood: "),
        (b"", "what the server says is not understood: "),
        (b"<x/>", "what the server says is not understood: "),
        (b"x" * (17 * 1024 * 1024), "the server sent an answer of more than 16 MiB"),
    ],
    ids=range(5),
)
async def test_an_answer_that_is_none_is_a_failure(by_winrm, failure, serve, certs, body, message):
    async def answer(request):
        await request.read()
        return web.Response(body=body)

    port = int((await serve(answer, tls=certs.server_context())).rpartition(":")[2])
    assert message in (await failure(by_winrm("x", port=port))).message


async def test_a_server_that_does_not_know_how_to_encrypt(by_winrm, failure, serve):
    async def answer(request):
        await request.read()
        return web.Response(body=b"<x/>")

    port = int((await serve(answer)).rpartition(":")[2])
    plain = {"port": port, "use_tls": False, "cacert": None, "authentication_method": "negotiate"}
    assert "what the server says is not understood" in (await failure(by_winrm("x", **plain))).message


# --- inputs


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"script": None}, "needs the input 'script': What to run."),
        ({"username": None}, "needs the input 'username': the user to log in as"),
        ({"password": None}, "needs the input 'key': the private key, or 'password'"),
        ({"key": "x"}, "cannot use the input 'key': expected a private key, '-----BEGIN … PRIVATE KEY-----'"),
        ({"hostkey": "x"}, "cannot use the input 'hostkey': "),
        ({"interpreter": '"'}, "cannot use the input 'interpreter': its quotes do not match"),
        ({"interpreter": " "}, "cannot use the input 'interpreter': expected a command"),
        ({"use_tls": True}, "cannot use the input 'use_tls': it is for 'winrm'"),
        ({"transport": "telnet"}, "cannot use the input 'transport': it is not one of the values that are possible"),
        ({"script_timeout": 0}, "cannot use the input 'script_timeout': expected a number > 0.0"),
        ({"transport": "winrm", "password": None}, "needs the input 'password': the user's password"),
        ({"transport": "winrm", "key": "x"}, "cannot use the input 'key': it is for 'ssh'"),
        (
            {"transport": "winrm", "authentication_method": "basic", "use_tls": False},
            "cannot use the input 'use_tls': basic authentication would send the password as it is",
        ),
    ],
    ids=range(13),
)
def test_inputs_that_cannot_be_used(tasks, inputs, message):
    given = {"hostname": "x", "username": "u", "password": SECRET, "script": "x", **inputs}
    with pytest.raises(errors.InputRefused) as refused:
        tasks.prepare("PS", json.dumps(given).encode())
    assert refused.value.message.startswith(f"PS {message}") and SECRET not in refused.value.message


def test_a_script_may_not_simply_be_repeated(tasks):
    given = {"hostname": "x", "username": "u", "password": "p", "script": "x"}
    assert not tasks.prepare("powershell", json.dumps(given).encode()).idempotent
