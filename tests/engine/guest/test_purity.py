"""Effects of a handler's own: which there are, that they wait until the daemon knows, and what is none."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time

import pytest

from headrace.engine.guest import effects
from tests.engine.guest.conftest import HELD, Process

#: How long an effect is given to happen although nobody acknowledged it.
_PATIENCE_S = 0.02
_BEGIN = "import os\nd = inputs['folder']\n"

#: event, detail (``d`` is the folder), body: each changes the folder, in which ``old`` and ``sub`` lie.
IN_THE_FOLDER = [
    ("open", "d/new", "open(f'{d}/new', 'w').close()"),
    ("open", "d/new", "open(f'{d}/new', 'x').close()"),
    ("open", "d/old", "open(f'{d}/old', 'a').write('more')"),
    ("open", "d/old", "open(f'{d}/old', 'r+').write('other')"),
    ("open", "d/new", "os.close(os.open(f'{d}/new', os.O_RDONLY | os.O_CREAT))"),
    ("open", "d/old", "f = os.open(f'{d}/old'.encode(), os.O_WRONLY); os.write(f, b'x'); os.close(f)"),
    ("open", "d/old", "import io; io.FileIO(f'{d}/old', 'w').close()"),
    ("open", "d/new", "import pathlib; pathlib.Path(d, 'new').write_text('x')"),
    ("open", "d/new", "import logging; logging.basicConfig(filename=f'{d}/new')"),
    ("open", "d/new.zip", "import zipfile; zipfile.ZipFile(f'{d}/new.zip', 'w').close()"),
    ("os.utime", "d/old", "import pathlib; pathlib.Path(d, 'old').touch()"),
    ("os.remove", "d/old", "os.remove(f'{d}/old')"),
    ("os.remove", "d/old", "import pathlib; pathlib.Path(d, 'old').unlink()"),
    ("os.rename", "d/old → d/new", "os.rename(f'{d}/old', f'{d}/new')"),
    ("os.rename", "d/old → d/new", "os.replace(f'{d}/old', f'{d}/new')"),
    ("os.link", "d/old → d/new", "os.link(f'{d}/old', f'{d}/new')"),
    ("os.symlink", "d/old → d/new", "os.symlink(f'{d}/old', f'{d}/new')"),
    ("os.mkdir", "d/new", "os.mkdir(f'{d}/new')"),
    ("os.rmdir", "d/sub", "os.rmdir(f'{d}/sub')"),
    ("os.chmod", "d/old", "os.chmod(f'{d}/old', 0o600)"),
    ("os.truncate", "d/old", "os.truncate(f'{d}/old', 1)"),
    ("shutil.copyfile", "d/new", "import shutil; shutil.copyfile(f'{d}/old', f'{d}/new')"),
    ("shutil.copytree", "d/new", "import shutil; shutil.copytree(f'{d}/sub', f'{d}/new')"),
    ("shutil.move", "d/old → d/new", "import shutil; shutil.move(f'{d}/old', f'{d}/new')"),
    ("shutil.rmtree", "d/sub", "import shutil; shutil.rmtree(f'{d}/sub')"),
    ("shutil.make_archive", "d/new", "import shutil; shutil.make_archive(f'{d}/new', 'tar', f'{d}/sub')"),
    ("tempfile.mkstemp", "d/*", "import tempfile; os.close(tempfile.mkstemp(dir=d)[0])"),
    ("tempfile.mkdtemp", "d/*", "import tempfile; tempfile.mkdtemp(dir=d)"),
    ("sqlite3.connect", "d/new", "import sqlite3; c = sqlite3.connect(f'{d}/new'); c.execute('create table t(x)')"),
    ("subprocess.Popen", "touch", "import subprocess; subprocess.run(['touch', f'{d}/new'])"),
    ("subprocess.Popen", "/bin/sh", "import subprocess; subprocess.run(f'touch {d}/new', shell=True)"),
    ("subprocess.Popen", "/bin/sh", "os.popen(f'touch {d}/new').close()"),
    ("os.system", "touch", "os.system(f'PASSWORD=hunter2 touch {d}/new')"),
    ("os.posix_spawn", "/bin/touch", "os.waitpid(os.posix_spawn('/bin/touch', ['touch', f'{d}/new'], {}), 0)"),
    ("os.fork", "", "os.spawnv(os.P_WAIT, '/bin/touch', ['touch', f'{d}/new'])"),
    (
        "os.fork",
        "",
        "pid = os.fork()\nif pid == 0:\n    open(f'{d}/new', 'w').close()\n    os._exit(0)\nos.waitpid(pid, 0)",
    ),
    (
        "os.forkpty",
        "",
        "pid, _ = os.forkpty()\nif pid == 0:\n    os.mkdir(f'{d}/new')\n    os._exit(0)\nos.waitpid(pid, 0)",
    ),
]

#: event, detail, body: nothing to be seen from here, or not on every machine.
ELSEWHERE = [
    ("os.chown", "d/old", "os.chown(f'{d}/old', -1, -1)"),
    ("os.setxattr", "d/none", "os.setxattr(f'{d}/none', 'user.a', b'1')"),
    ("os.removexattr", "d/none", "os.removexattr(f'{d}/none', 'user.a')"),
    ("fcntl.flock", "*", "import fcntl\nwith open(f'{d}/old') as f: fcntl.flock(f, fcntl.LOCK_EX)"),
    ("fcntl.lockf", "*", "import fcntl\nwith open(f'{d}/old') as f: fcntl.lockf(f, fcntl.LOCK_SH)"),
    ("os.killpg", "process 999999999, signal 15", "os.killpg(999999999, 15)"),
    ("signal.pthread_kill", "*", "import signal, threading; signal.pthread_kill(threading.get_ident(), 28)"),
    ("socket.getaddrinfo", "localhost:80", "import socket; socket.getaddrinfo('localhost', 80)"),
    ("socket.gethostbyname", "localhost", "import socket; socket.gethostbyname('localhost')"),
    ("socket.gethostbyaddr", "127.0.0.1", "import socket; socket.gethostbyaddr('127.0.0.1')"),
    ("socket.bind", "127.0.0.1:0", "import socket\nwith socket.socket() as s: s.bind(('127.0.0.1', 0))"),
    ("socket.bind", "d/new", "import socket\nwith socket.socket(socket.AF_UNIX) as s: s.bind(f'{d}/new')"),
    ("urllib.Request", "http://127.0.0.1", "import urllib.request as r; r.urlopen('http://a:b@127.0.0.1:1/?key=1')"),
    ("http.client.connect", "127.0.0.1:1", "import http.client as h; h.HTTPConnection('127.0.0.1', 1).connect()"),
    ("smtplib.connect", "127.0.0.1:1", "import smtplib; smtplib.SMTP('127.0.0.1', 1)"),
    ("ftplib.connect", "127.0.0.1:21", "import ftplib; ftplib.FTP('127.0.0.1')"),
    ("imaplib.open", "127.0.0.1:1", "import imaplib; imaplib.IMAP4('127.0.0.1', 1)"),
    ("poplib.connect", "127.0.0.1:1", "import poplib; poplib.POP3('127.0.0.1', 1)"),
    ("webbrowser.open", "http://x.test", "import webbrowser as w; w.GenericBrowser('true').open('http://x.test/?a=b')"),
    ("syslog.openlog", "", "import syslog; syslog.openlog('x')"),
]

#: What an address tells: never who one is there, nor what is asked for.
SITES = [
    ("http://h.test", "http://h.test"),
    ("http://anna:geheim@h.test:80/x?key=geheim", "http://h.test"),
    ("http://u:geheim/geheim@h.test/", "http://u"),
    ("ftp://geheim@h.test:21#geheim", "ftp://h.test"),
    ("https://[::1]:8443/geheim", "https://[::1]"),
    ("http://h.test?geheim@x", "http://h.test"),
    ("geheim", ""),
    ("FILE:///etc/hosts", None),
    ("data:,geheim", None),
]


@pytest.mark.parametrize(("url", "told"), SITES)
def test_of_an_address_only_scheme_and_host_are_told(url, told):
    assert effects.JUDGES["urllib.Request"]((url,)) == told


#: Native code that nobody vouches for. Each needs a process of its own.
NATIVE = [
    ("import", "jsonschema_rs.jsonschema_rs", "import jsonschema_rs"),
    ("import", "_posixshmem", "import _posixshmem"),
    ("ctypes.dlopen", "the C library", "import ctypes; ctypes.CDLL(None)"),
    ("ctypes.dlopen", "libm.so.6", "import ctypes; ctypes.CDLL('libm.so.6')"),
]

#: What uses the native code that is known to be harmless, by package.
HARMLESS_NATIVE = {
    "Crypto": "from Crypto.Cipher import AES; AES.new(b'x' * 16, AES.MODE_GCM).encrypt(b'y')\n"
    "from Crypto.PublicKey import RSA; RSA.generate(1024)",
    "_cffi_backend": "import cffi; cffi.FFI().new('int *')",
    "charset_normalizer": "import charset_normalizer; charset_normalizer.from_bytes('Grüße'.encode('latin-1')).best()",
    "markupsafe": "import markupsafe; markupsafe.escape('<')",
    "msgspec": "import msgspec; msgspec.json.decode(msgspec.json.encode([1]))",
    "yaml": "import yaml; yaml.load(yaml.safe_dump({'a': 1}), yaml.CSafeLoader)",
}

HARMLESS = [
    *HARMLESS_NATIVE.values(),
    "import json, re, decimal, datetime, math; json.dumps([decimal.Decimal(1) > 0]); re.sub('a', 'b', 'c')",
    "import csv, io, statistics, itertools, collections, difflib, textwrap, html, string; csv.writer(io.StringIO())",
    "open(f'{d}/old').read(); os.listdir(d); list(os.walk(d)); os.stat(d); os.path.realpath('.')",
    "import pathlib, glob; pathlib.Path(d, 'old').read_bytes(); glob.glob(d + '/*'); pathlib.Path(d).exists()",
    "import shared.words; assert shared.words.WORDS == 3 and not os.path.exists('shared/__pycache__')",
    "import logging, warnings; logging.warning('x'); print('y', flush=True); warnings.warn('z')",
    "import zoneinfo, time; zoneinfo.ZoneInfo('Europe/Vienna'); time.sleep(0); time.strftime('%c')",
    "import hashlib, hmac, secrets, zlib, bz2, lzma; hashlib.sha256(b'x'); secrets.token_hex(); zlib.crc32(b'')",
    "import uuid, random; uuid.uuid4(); uuid.uuid1(); random.random(); os.urandom(3)",
    "import tempfile; tempfile.gettempdir(); tempfile.SpooledTemporaryFile().write(b'x')",
    "os.environ['X_OF_A_TEST'] = '1'; os.environ.pop('X_OF_A_TEST'); os.chdir('.'); os.umask(os.umask(0))",
    "open(os.devnull, 'w').close(); open('/dev/stdout', 'w').close(); open('/dev/fd/2', 'w').close()",
    "r, w = os.pipe()\nwith os.fdopen(w, 'w') as f: f.write('x')\nos.close(r)",
    "import socket; socket.gethostname(); [s.close() for s in socket.socketpair()]; socket.socket().close()",
    "import sqlite3; sqlite3.connect(':memory:').close(); sqlite3.connect('').close()",
    "import mmap; mmap.mmap(-1, 9).close()\nwith open(f'{d}/old') as f: mmap.mmap(f.fileno(), 0, prot=1).close()",
    "import fcntl; fcntl.fcntl(1, fcntl.F_GETFL); os.kill(os.getpid(), 0)",
    "import platform; platform.platform(); platform.processor(); platform.architecture(); platform.node()",
    "import ssl, subprocess, multiprocessing, xml.etree.ElementTree, asyncio; ssl.create_default_context()",
    "import asyncio; asyncio.run(asyncio.sleep(0))",
    "import concurrent.futures as c\nwith c.ThreadPoolExecutor(2) as pool: assert list(pool.map(abs, [-1])) == [1]",
    "from multiprocessing.pool import ThreadPool\nwith ThreadPool(2) as pool: assert pool.map(abs, [-1]) == [1]",
    "import requests, urllib3; requests.Session().close()",
    "import pystache, pytz, dateutil.tz; pystache.render('{{a}}', a=1); dateutil.tz.gettz('Europe/Vienna')",
    "import io, zipfile; zipfile.ZipFile(io.BytesIO(), 'w').writestr('a', 'b')",
    "import urllib.request; urllib.request.urlopen('data:,x').read()",
    "import getpass, locale, shutil, signal, ctypes; shutil.which('true'); signal.getsignal(15); os.getlogin",
    "this.log(1); this.set_output('a', 1); this.sleep(1); system.setting('x', value=1); this.now; this.flow",
]


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    snapshot = tmp_path_factory.mktemp("snapshot")
    (snapshot / "shared").mkdir()
    (snapshot / "shared/words.py").write_text(
        "WORDS = 3\n\n\ndef save(path):\n    with open(path, 'w'):\n        pass\n"
    )
    return snapshot


@contextlib.contextmanager
def a_process(snapshot, *wrapper):
    process = Process(snapshot, *wrapper)
    try:
        yield process
    finally:
        process.kill()


@pytest.fixture(scope="module")
def process(snapshot):
    with a_process(snapshot) as process:
        yield process


@pytest.fixture(scope="module")
def pure(snapshot):
    """A process in which nothing happens but what is harmless."""
    with a_process(snapshot) as process:
        yield process


@pytest.fixture
def waits(process):
    """The same process, at a daemon that acknowledges nothing by itself."""
    process.daemon.acknowledges = False
    yield process
    process.daemon.acknowledges = True


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "old").write_text("something")
    (tmp_path / "sub").mkdir()
    os.utime(tmp_path / "old", (1, 1))
    return tmp_path


def look_of(folder):
    """Everything about a folder that an effect could change."""
    return {
        path.relative_to(folder): (found.st_mode, found.st_size, found.st_mtime_ns, found.st_nlink)
        for path in folder.rglob("*")
        for found in [path.lstat()]
    }


def matches(detail, pattern, folder):
    pattern = "".join(".+" if part == "*" else re.escape(part) for part in re.split(r"(\*)", pattern))
    return re.fullmatch(re.sub(r"\bd/", re.escape(f"{folder}/"), pattern), detail)


def let_happen(process):
    """Acknowledge, and return how the execution ended."""
    process.daemon.acknowledge()
    return process.daemon.ended.get(timeout=30)


# -- what is an effect ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("event", "detail", "body"), IN_THE_FOLDER, ids=lambda value: value.replace("/", "|")[:60])
def test_an_effect_waits_until_the_daemon_knows_of_it(waits, folder, event, detail, body):
    before = look_of(folder)
    waits.start(_BEGIN + body, folder=str(folder))
    told = waits.daemon.noticed.get(timeout=10)
    time.sleep(_PATIENCE_S)
    assert look_of(folder) == before, "it happened before anybody knew"
    assert waits.daemon.ended.empty()
    assert told["event"] == event and matches(told["detail"], detail, folder), told
    assert (told["file"], told["line"]) == ("script.py", 5)
    ended = let_happen(waits)
    assert ended["outcome"] == "success", ended
    assert look_of(folder) != before, "the test would not have seen it"
    assert len(waits.daemon.effects) == 1, "only the first is told"


@pytest.mark.parametrize(("event", "detail", "body"), ELSEWHERE, ids=lambda value: value.replace("/", "|")[:60])
def test_these_are_effects_too(waits, folder, event, detail, body):
    waits.start(_BEGIN + body, folder=str(folder))
    told = waits.daemon.noticed.get(timeout=10)
    time.sleep(_PATIENCE_S)
    assert waits.daemon.ended.empty(), "it did not wait"
    let_happen(waits)
    assert told["event"] == event and matches(told["detail"], detail, folder), told


@pytest.mark.parametrize(("event", "detail", "body"), NATIVE)
def test_native_code_that_nobody_vouches_for_is_an_effect_of_every_execution_in_that_process(
    snapshot, event, detail, body
):
    with a_process(snapshot) as process:
        for _ in range(2):
            assert process.run(body)["outcome"] == "success"
            assert process.daemon.effects == [(event, detail)]


@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_DGRAM"])
def test_nothing_is_sent_before_the_daemon_knows(waits, kind):
    with socket.socket(socket.AF_INET, getattr(socket, kind)) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        if kind == "SOCK_STREAM":
            server.listen()
        take = server.accept if kind == "SOCK_STREAM" else lambda: server.recv(9)
        port = server.getsockname()[1]
        sends = (
            f"s.connect(('127.0.0.1', {port}))" if kind == "SOCK_STREAM" else f"s.sendto(b'x', ('127.0.0.1', {port}))"
        )
        waits.start(f"import socket\nwith socket.socket(socket.AF_INET, socket.{kind}) as s: {sends}")
        told = waits.daemon.noticed.get(timeout=10)
        time.sleep(_PATIENCE_S)
        with pytest.raises(BlockingIOError):
            take()
        let_happen(waits)
        got = take()
        if kind == "SOCK_STREAM":
            got[0].close()
        event = "socket.connect" if kind == "SOCK_STREAM" else "socket.sendto"
        assert (told["event"], told["detail"]) == (event, f"127.0.0.1:{port}")


def test_no_process_is_ended_before_the_daemon_knows(waits):
    with subprocess.Popen(["sleep", "60"]) as victim:
        waits.start(f"import os\nos.kill({victim.pid}, 15)")
        told = waits.daemon.noticed.get(timeout=10)
        time.sleep(_PATIENCE_S)
        assert victim.poll() is None
        let_happen(waits)
        assert victim.wait(10) == -15
    assert (told["event"], told["detail"]) == ("os.kill", f"process {victim.pid}, signal 15")


def test_a_connection_that_was_there_before_is_seen_when_it_is_used(process):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        process.run(
            f"import http.client\nc = http.client.HTTPConnection('127.0.0.1', {port})\n"
            "this.step('connect', lambda: c.connect())\nc.request('GET', '/')\nc.close()"
        )
    assert process.daemon.effects == [("http.client.send", f"127.0.0.1:{port}")]


def test_writing_through_memory_is_seen(process, folder):
    body = "import mmap\nf = this.step('open', lambda: opened.append(open(f'{d}/old', 'r+')))\n"
    process.run(_BEGIN + "opened = []\n" + body + "mmap.mmap(opened[0].fileno(), 0).close()", folder=str(folder))
    assert [event for event, _ in process.daemon.effects] == ["mmap.__new__"]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(
    ("body", "call"),
    [
        ("open(f'{d}/new', 'w').close()", r'openat\(AT_FDCWD, "[^"]*/new"'),
        ("os.mkdir(f'{d}/new')", r'mkdir\("[^"]*/new"'),
        ("os.rename(f'{d}/old', f'{d}/new')", r'rename\("[^"]*/old"'),
        ("import subprocess; subprocess.run(['touch', f'{d}/new'])", r"vfork|clone3?\("),
    ],
)
def test_the_kernel_sees_the_notice_and_its_acknowledgement_before_the_effect(snapshot, folder, tmp_path, body, call):
    trace = tmp_path / "trace"
    with a_process(snapshot, "strace", "-f", "-s", "300", "-o", str(trace)) as process:
        process.run(_BEGIN + body, folder=str(folder))
    lines = trace.read_text().splitlines()
    sent, answered = (
        next(n for n, line in enumerate(lines) if mark in line)
        for mark in ('{\\"op\\":\\"effect\\"', '{\\"noticed\\":true}')
    )
    first = next(n for n, line in enumerate(lines) if n > sent and re.search(call, line))
    assert sent < answered < first
    assert not any(re.search(call, line) for line in lines[:sent] if "/new" in line or "/old" in line)


# -- what is none -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", HARMLESS, ids=lambda body: body[:50].replace("/", "|"))
def test_what_is_harmless_is_not_noticed(pure, folder, body):
    ended = pure.run(_BEGIN + body, folder=str(folder))
    assert ended["outcome"] == "success", ended["failure"]["traceback"]
    assert pure.daemon.effects == []


def test_every_package_that_is_vouched_for_is_tried():
    assert HARMLESS_NATIVE.keys() == effects._HARMLESS_NATIVE


def test_native_code_of_the_repository_is_not_vouched_for_by_its_name():
    assert effects.JUDGES["import"](("yaml._yaml", "/snapshots/abc/yaml/_yaml.so", None, None, None)) == "yaml._yaml"
    assert effects.JUDGES["ctypes.dlopen"](("/usr/lib/python3/dist-packages/Crypto/../evil/x.so",))


def test_only_the_time_of_the_handler_counts(process, folder):
    ended = process.run(_BEGIN + "import atexit, weakref\nglobals()['kept'] = open(f'{d}/old')", folder=str(folder))
    assert ended["outcome"] == "success" and process.daemon.effects == []


# -- where it was -----------------------------------------------------------------------------------------------------


def test_the_authors_innermost_line_is_named(process, folder):
    process.run(_BEGIN + "from shared import words\nwords.save(f'{d}/new')", folder=str(folder))
    told = process.daemon.noticed.get(timeout=10)
    assert (told["file"], told["line"]) == ("shared/words.py", 5)


def test_what_a_flow_does_while_it_is_loaded_counts(process, folder):
    process.run(f"open({str(folder / 'new')!r}, 'w').close()\ndef handler(system, this):\n    pass", whole=True)
    told = process.daemon.noticed.get(timeout=10)
    assert (told["file"], told["line"]) == ("script.py", 1)


def test_a_thread_without_code_of_the_author_is_told_with_the_handlers_line(process, folder):
    process.run(
        _BEGIN + "import threading\nt = threading.Thread(target=os.mkdir, args=(f'{d}/new',))\nt.start()\nt.join()",
        folder=str(folder),
    )
    told = process.daemon.noticed.get(timeout=10)
    assert told["event"] == "os.mkdir" and told["file"] == "script.py" and told["line"] in (7, 8)


# -- threads, signals, forks ------------------------------------------------------------------------------------------

_THREADS = """
import threading
def effect(name):
    open(f'{d}/{name}', 'w').close()
threads = [threading.Thread(target=effect, args=(str(n),)) for n in range(3)]
for t in threads: t.start()
"""


def test_threads_wait_for_one_notice_together(waits, folder):
    before = look_of(folder)
    waits.start(_BEGIN + _THREADS + "for t in threads: t.join()", folder=str(folder))
    waits.daemon.noticed.get(timeout=10)
    time.sleep(_PATIENCE_S)
    assert look_of(folder) == before
    let_happen(waits)
    assert len(look_of(folder)) == len(before) + 3 and len(waits.daemon.effects) == 1


def test_a_thread_gets_its_acknowledgement_while_the_handler_sits_in_a_call(waits, folder):
    waits.daemon.answers("sleep", HELD)
    body = _THREADS.replace("open(", "import time; time.sleep(0.1); open(")
    waits.start(_BEGIN + body + "this.sleep(9)\nfor t in threads: t.join()", folder=str(folder))
    waits.daemon.noticed.get(timeout=10)
    assert waits.daemon.calls
    waits.daemon.acknowledge()
    deadline = time.monotonic() + 10
    while len(look_of(folder)) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(look_of(folder)) == 5, "the threads went on while the handler waits"
    waits.daemon.send({"call": 1, "result": None})
    assert waits.daemon.ended.get(timeout=10)["outcome"] == "success"
    waits.daemon.answers("sleep", None)


def test_a_handler_gets_its_answer_while_a_thread_waits_for_its_acknowledgement(waits, folder):
    waits.daemon.answers("sleep", HELD)
    waits.start(_BEGIN + _THREADS + "this.sleep(9)\nthis.log('slept')\nfor t in threads: t.join()", folder=str(folder))
    waits.daemon.noticed.get(timeout=10)
    while not waits.daemon.calls:
        time.sleep(0.001)
    waits.daemon.send({"call": 1, "result": None})
    deadline = time.monotonic() + 10
    while not any(said["op"] == "log" for said in waits.daemon.said) and time.monotonic() < deadline:
        time.sleep(0.001)
    assert any(said["op"] == "log" for said in waits.daemon.said)
    assert len(look_of(folder)) == 2, "the threads still wait"
    assert let_happen(waits)["outcome"] == "success"
    waits.daemon.answers("sleep", None)


def test_a_signals_handler_that_interrupts_a_call_tells_and_goes_on(waits, folder):
    waits.daemon.answers("sleep", HELD)
    waits.start(
        _BEGIN + "import signal\nsignal.signal(signal.SIGALRM, lambda *_: open(f'{d}/new', 'w').close())\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.02)\nthis.sleep(9)\nthis.sleep(9)",
        folder=str(folder),
    )
    assert waits.daemon.noticed.get(timeout=10)["event"] == "open"
    waits.daemon.answers("sleep", None)
    waits.daemon.acknowledge()
    waits.daemon.send({"call": 1, "result": None})
    assert waits.daemon.ended.get(timeout=10)["outcome"] == "success"
    assert (folder / "new").exists()


def test_a_forked_process_keeps_off_the_channel(process, folder):
    ended = process.run(
        _BEGIN + "pid = os.fork()\nif pid == 0:\n    os.mkdir(f'{d}/a'); os.system(f'touch {d}/b'); os._exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0\nthis.sleep(1)",
        folder=str(folder),
    )
    assert ended["outcome"] == "success" and process.daemon.effects == [("os.fork", "")]
    assert len(look_of(folder)) == 4


def test_nothing_happens_when_the_daemon_is_gone(snapshot, folder):
    with a_process(snapshot) as process:
        process.daemon.acknowledges = False
        body = "for name in 'ab':\n    try: open(f'{d}/{name}', 'w').close()\n    except Exception: pass"
        process.start(_BEGIN + body, folder=str(folder))
        process.daemon.noticed.get(timeout=10)
        process.daemon.close()
        assert process._process.wait(10) is not None
        assert len(look_of(folder)) == 2
        process.daemon.__init__()  # something to close at the end


# -- steps ------------------------------------------------------------------------------------------------------------


def test_a_step_is_the_sanctioned_way(process, folder):
    ended = process.run(
        _BEGIN + "import threading\ndef write():\n    t = threading.Thread(target=os.mkdir, args=(f'{d}/a',))\n"
        "    t.start(); t.join()\n    open(f'{d}/b', 'w').close()\n    return 'written'\n"
        "this.step('write', write)\nassert os.path.exists(f'{d}/a')",
        folder=str(folder),
    )
    assert ended["outcome"] == "success" and process.daemon.effects == [] and len(look_of(folder)) == 4
    assert process.daemon.calls == [("step", "write", {"result": "written"})]


def test_after_a_step_it_counts_again_also_when_the_step_raised(process, folder):
    process.run(
        _BEGIN + "try: this.step('x', lambda: 1 / 0)\nexcept ZeroDivisionError: pass\nos.mkdir(f'{d}/a')",
        folder=str(folder),
    )
    assert process.daemon.effects == [("os.mkdir", f"{folder}/a")] and process.daemon.calls == []


@pytest.mark.parametrize(
    "call", ["this.sleep(1)", "system.setting('x').get('value')", "this.step('y', made.append, 1)"]
)
def test_a_call_inside_of_a_step_is_refused(process, call):
    ended = process.run(f"made = []\ntry: this.step('x', lambda: {call})\nfinally: assert made == []")
    assert ended["failure"]["type"] == "InternalError", ended
    assert "cannot be made inside of the step 'x'" in ended["failure"]["message"]
    assert process.daemon.calls == []


def test_what_a_step_logs_has_no_number_and_its_call_keeps_its_own(process):
    process.run("this.log('a')\nthis.step('x', lambda: this.log('b') and None)\nthis.log('c')")
    assert [(said["op"], said.get("args"), said["call"]) for said in process.daemon.said if said["op"] != "ended"] == [
        ("log", ["a"], 1),
        ("log", ["b"], 0),
        ("call", {"result": None}, 2),
        ("log", ["c"], 3),
    ]


def test_a_step_in_another_thread_is_refused_before_it_does_anything(process):
    ended = process.run(
        "import threading\nmade, met = [], []\ndef go():\n    try: this.step('x', made.append, 1)\n"
        "    except flow_api.InternalError as error: met.append(str(error))\n"
        "t = threading.Thread(target=go)\nt.start()\nt.join()\nreturn [made, met[0]]"
    )
    assert ended["returned"][0] == [] and "own thread" in ended["returned"][1]


# -- warm processes ---------------------------------------------------------------------------------------------------


def test_every_execution_in_a_warm_process_is_told_of_anew(snapshot, folder):
    told = []
    with a_process(snapshot) as process:
        for body in ("open(f'{d}/a', 'w').close()", "pass", "os.mkdir(f'{d}/b')", "os.mkdir(f'{d}/c')", "pass"):
            ended = process.run(_BEGIN + body, folder=str(folder))
            assert ended["dirty"] == ""
            told.append([event for event, _ in process.daemon.effects])
    assert told == [["open"], [], ["os.mkdir"], ["os.mkdir"], []]


@pytest.mark.parametrize("sanctioned", [False, True])
def test_a_process_with_something_open_does_not_stay(snapshot, folder, sanctioned):
    opens = "os.open(f'{d}/new', os.O_WRONLY | os.O_CREAT)"
    with a_process(snapshot) as process:
        body = f"this.step('x', lambda: {opens})" if sanctioned else opens
        assert process.run(_BEGIN + body, folder=str(folder))["dirty"] == "a file or a connection is still open"


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()", "a thread is still"),
        ("import subprocess\nsubprocess.Popen(['sleep', '20'])", "a child process is still there"),
        ("os.chdir('/')", "the working directory was changed"),
        ("os.environ['NEW'] = '1'", "the environment was changed"),
    ],
)
def test_what_a_handler_leaves_behind_is_found(snapshot, body, what):
    with a_process(snapshot) as process:
        assert process.run("this.log('fine')")["dirty"] == ""
        assert process.run(f"import os\n{body}")["dirty"].startswith(what)


def test_what_native_code_leaves_behind_later_raises_no_event_and_is_found(snapshot):
    with a_process(snapshot) as process:
        loads = "import ctypes\nctypes.kept = ctypes.CDLL(None)"
        assert process.run(loads)["dirty"] == ""
        assert process.run("import ctypes\nctypes.kept.getpid()")["dirty"] == ""
        assert process.run("import ctypes\nctypes.kept.dup(1)")["dirty"] == "a file or a connection is still open"
