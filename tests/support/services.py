"""Real servers on loopback, each with state of its own below a folder, ended with the block.

They run as an unprivileged user where the tests are root: some refuse to be root.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence

import pytest

from tests.support import oracle_server, tds_double
from tests.support.certificates import Certificates

PASSWORD = "pass-word-of-the-tests"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def program(name: str) -> str:
    """Return the program's path; skips the test where Debian's package of it is not installed."""
    places = [*sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), "/usr/sbin", "/usr/bin", "/bin"]
    found = shutil.which(name, path=os.pathsep.join(map(str, places)))
    if found is None:
        pytest.skip(f"{name} is not installed: see TEST_PACKAGES in the Makefile")
    return found


def someone() -> str | None:
    """Return who the servers run as: nobody, or None for us."""
    return "nobody" if os.geteuid() == 0 else None


@contextlib.contextmanager
def folder() -> Iterator[pathlib.Path]:
    """Give a folder of the server's user, in memory where that can be: databases wait for disks when they are made.

    Its name is short, because those of sockets have to fit into 100 characters."""
    memory = pathlib.Path("/dev/shm")
    path = pathlib.Path(tempfile.mkdtemp(prefix="served-", dir=memory if os.access(memory, os.W_OK) else None))
    try:
        own(path)
        yield path
    finally:
        shutil.rmtree(path)


def own(path: pathlib.Path) -> None:
    """Give the file or folder to the servers' user."""
    if someone() is not None:
        entry = pwd.getpwnam("nobody")
        os.chown(path, entry.pw_uid, entry.pw_gid)


def run(*arguments: str, text: str = "", environment: dict[str, str] | None = None) -> str:
    """Run a program as the servers' user and return what it said."""
    done = subprocess.run(
        arguments, input=text, text=True, capture_output=True, cwd="/", user=someone(), env=environment, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextlib.contextmanager
def started(
    arguments: Sequence[str],
    ready: Callable[[], bool],
    log: pathlib.Path,
    environment: dict[str, str] | None = None,
    *,
    ourselves: bool = False,
) -> Iterator[subprocess.Popen]:
    """Run a server until the block ends, from when it is ready; as us if it is a program of ours."""
    with log.open("wb") as said:
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=log.parent,
            user=None if ourselves else someone(),
            env=environment, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not ready():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(port: int) -> Callable[[], bool]:
    """Whether somebody listens there."""

    def tried() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    return tried


@dataclasses.dataclass(frozen=True)
class Service:
    """A server that runs: where, and how to get in."""

    port: int
    folder: pathlib.Path
    username: str = ""
    tls_port: int = 0
    process: subprocess.Popen | None = None

    @property
    def access(self) -> dict:
        """The inputs of a task that uses it."""
        return {"hostname": "127.0.0.1", "port": self.port, "username": self.username, "password": PASSWORD}


def _certificates(target: pathlib.Path, source: pathlib.Path) -> None:
    for name in ("ca.crt", "server.crt", "server.key"):
        copy = target / name
        shutil.copy(source / name, copy)
        copy.chmod(0o600)
        own(copy)


@contextlib.contextmanager
def postgresql(certificates: pathlib.Path) -> Iterator[Service]:
    """PostgreSQL with a user ``app`` and a database of that name."""
    initdb, postgres = program("initdb"), program("postgres")
    with folder() as base:
        data, password, port = base / "data", base / "password", free_port()
        password.write_text(PASSWORD)
        own(password)
        run(
            initdb, "-D", str(data), "-U", "app", f"--pwfile={password}", "-A", "scram-sha-256", "--no-sync",
            "--locale=C.UTF-8",
        )  # fmt: skip
        _certificates(data, certificates)
        settings = {
            "port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off",
            "ssl": "on", "ssl_cert_file": "server.crt", "ssl_key_file": "server.key", "ssl_ca_file": "ca.crt",
            "shared_buffers": "16MB",
        }  # fmt: skip
        options = [text for name, value in settings.items() for text in ("-c", f"{name}={value}")]
        environment = {"PGPASSWORD": PASSWORD, "PATH": os.defpath}
        ask = [program("psql"), "-h", "127.0.0.1", "-p", str(port), "-U", "app", "-d", "postgres", "-qAtc"]

        def ready() -> bool:
            return subprocess.run([*ask, "SELECT 1"], env=environment, capture_output=True).returncode == 0

        with started([postgres, "-D", str(data), *options], ready, base / "log"):
            run(*ask, "CREATE DATABASE app", environment=environment)
            yield Service(port, base, "app")


@contextlib.contextmanager
def mariadb(certificates: pathlib.Path) -> Iterator[Service]:
    """MariaDB with a user ``app`` and a database of that name."""
    install, server, client = program("mariadb-install-db"), program("mariadbd"), program("mariadb")
    with folder() as base:
        data, end, port = base / "data", base / "end", free_port()
        common = ["--no-defaults", f"--datadir={data}", f"--tmpdir={base}"]
        run(
            install,
            *common,
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--innodb-flush-method=nosync",
        )
        _certificates(base, certificates)
        arguments = [
            server, *common, f"--socket={end}", f"--port={port}", "--bind-address=127.0.0.1", "--skip-name-resolve",
            "--innodb-flush-method=nosync", "--innodb-flush-log-at-trx-commit=0", f"--ssl-cert={base}/server.crt",
            f"--ssl-key={base}/server.key", f"--ssl-ca={base}/ca.crt", f"--pid-file={base}/pid",
        ]  # fmt: skip
        ask = [client, "--no-defaults", f"--socket={end}", "-u", "root", "-e"]

        def ready() -> bool:
            return subprocess.run([*ask, "SELECT 1"], capture_output=True).returncode == 0

        with started(arguments, ready, base / "log"):
            run(*ask, f"CREATE DATABASE app; CREATE USER app IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON app.* TO app")
            yield Service(port, base, "app")


@contextlib.contextmanager
def sql_server(certificates: pathlib.Path) -> Iterator[Service]:
    """What speaks the protocol of SQL Server, with a user ``app`` and a database of that name."""
    with folder() as base:
        trust = Certificates(certificates).server_context()
        double = tds_double.Server(base / "data", password=PASSWORD, tls=trust)
        with tds_double.served(double):
            yield Service(double.port, base, "app")


@contextlib.contextmanager
def oracle(certificates: pathlib.Path) -> Iterator[Service]:
    """What speaks the protocol of Oracle, with a user ``app``."""
    with folder() as base, contextlib.ExitStack() as stack:
        plain = oracle_server.Server(base / "data", password=PASSWORD)
        through_tls = dataclasses.replace(
            plain, database=base / "more", tls=Certificates(certificates).server_context(), running=[]
        )
        for one in (plain, through_tls):
            stack.enter_context(oracle_server.served(one))
        yield Service(plain.port, base, "app", through_tls.port)


@contextlib.contextmanager
def redis(certificates: pathlib.Path) -> Iterator[Service]:
    """Redis, with the password for its default user and for ``app``, which may only read."""
    server = program("redis-server")
    with folder() as base:
        _certificates(base, certificates)
        port, tls_port = free_port(), free_port()
        (base / "conf").write_text(
            f"port {port}\ntls-port {tls_port}\nbind 127.0.0.1\ndir {base}\nsave ''\nrequirepass {PASSWORD}\n"
            f"tls-cert-file {base}/server.crt\ntls-key-file {base}/server.key\ntls-ca-cert-file {base}/ca.crt\n"
            f"tls-auth-clients optional\nuser app on >{PASSWORD} ~* +@read\n"
        )
        with started([server, str(base / "conf")], answers(port), base / "log"):
            yield Service(port, base, "default", tls_port)


@contextlib.contextmanager
def slapd(certificates: pathlib.Path) -> Iterator[Service]:
    """OpenLDAP with the directory ``dc=example``, whose ``cn=admin`` may everything and others may read."""
    server, schema = program("slapd"), pathlib.Path("/etc/ldap/schema")
    with folder() as base:
        _certificates(base, certificates)
        (base / "data").mkdir()
        own(base / "data")
        (base / "conf").write_text(
            "".join(f"include {schema}/{one}.schema\n" for one in ("core", "cosine", "inetorgperson"))
            + f"modulepath /usr/lib/ldap\nmoduleload back_mdb\npidfile {base}/pid\nTLSCACertificateFile {base}/ca.crt\n"
            f"TLSCertificateFile {base}/server.crt\nTLSCertificateKeyFile {base}/server.key\nTLSVerifyClient allow\n"
            f'database mdb\nsuffix "dc=example"\nrootdn "cn=admin,dc=example"\nrootpw {PASSWORD}\n'
            f"directory {base}/data\n"
            "dbnosync\nsizelimit size.soft=500 size.hard=1000 size.pr=500 size.prtotal=unlimited\n"
        )
        port, tls_port = free_port(), free_port()
        urls = f"ldap://127.0.0.1:{port} ldaps://127.0.0.1:{tls_port}"
        with started([server, "-f", str(base / "conf"), "-h", urls, "-d", "stats"], answers(port), base / "log"):
            yield Service(port, base, "cn=admin,dc=example", tls_port)


@contextlib.contextmanager
def moto() -> Iterator[str]:
    """The services of AWS as moto knows them; gives their address."""
    with folder() as base:
        port = free_port()
        arguments = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        with started(arguments, answers(port), base / "log", {"PATH": os.defpath, "HOME": str(base)}, ourselves=True):
            yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def mosquitto(certificates: pathlib.Path) -> Iterator[Service]:
    """An MQTT broker for the user ``app``, who may not use topics below ``secret``."""
    server, passwords = program("mosquitto"), program("mosquitto_passwd")
    with folder() as base:
        _certificates(base, certificates)
        run(passwords, "-b", "-c", str(base / "users"), "app", PASSWORD)
        (base / "acl").write_text("user app\ntopic readwrite free/#\n")
        port, tls_port = free_port(), free_port()
        (base / "conf").write_text(
            f"allow_anonymous false\npassword_file {base}/users\nacl_file {base}/acl\nmax_queued_messages 0\n"
            f"listener {port} 127.0.0.1\nlistener {tls_port} 127.0.0.1\ncafile {base}/ca.crt\n"
            f"certfile {base}/server.crt\nkeyfile {base}/server.key\n"
        )
        with started([server, "-v", "-c", str(base / "conf")], answers(port), base / "log"):
            yield Service(port, base, "app", tls_port)


@contextlib.contextmanager
def rabbitmq(certificates: pathlib.Path) -> Iterator[Service]:
    """RabbitMQ for the user ``app``."""
    server = pathlib.Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    if not server.exists():
        pytest.skip("rabbitmq-server is not installed: see TEST_PACKAGES in the Makefile")
    with folder() as base:
        _certificates(base, certificates)
        port, tls_port, names = free_port(), free_port(), str(free_port())
        (base / "conf").write_text(
            f"listeners.tcp.default = 127.0.0.1:{port}\nlisteners.ssl.default = 127.0.0.1:{tls_port}\n"
            f"default_user = app\ndefault_pass = {PASSWORD}\nssl_options.certfile = {base}/server.crt\n"
            f"ssl_options.keyfile = {base}/server.key\nssl_options.cacertfile = {base}/ca.crt\n"
            "ssl_options.verify = verify_none\n"
        )
        environment = {
            "PATH": os.defpath, "HOME": str(base), "RABBITMQ_NODENAME": "tests@localhost", "ERL_EPMD_PORT": names,
            "ERL_EPMD_ADDRESS": "127.0.0.1", "RABBITMQ_MNESIA_BASE": str(base), "RABBITMQ_LOG_BASE": str(base),
            "RABBITMQ_CONFIG_FILE": f"{base}/conf", "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{base}/plugins", "RABBITMQ_DIST_PORT": str(free_port()),
        }  # fmt: skip
        try:
            with started([str(server)], answers(port), base / "log", environment):
                yield Service(port, base, "app", tls_port)
        finally:
            subprocess.run([program("epmd"), "-port", names, "-kill"], env=environment, capture_output=True)


@contextlib.contextmanager
def prometheus() -> Iterator[str]:
    """Prometheus that watches itself; gives its address."""
    server = program("prometheus")
    with folder() as base:
        port = free_port()
        (base / "data").mkdir()
        own(base / "data")
        target = f"static_configs: [{{targets: ['127.0.0.1:{port}']}}]"
        (base / "conf").write_text(
            f"global: {{scrape_interval: 100ms}}\nscrape_configs:\n- job_name: itself\n  {target}\n"
        )
        arguments = [
            server, f"--config.file={base}/conf", f"--storage.tsdb.path={base}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ]  # fmt: skip
        address = f"http://127.0.0.1:{port}"

        def ready() -> bool:  # it listens before it has opened its storage, and answers with 503 until then
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/-/ready", timeout=1):
                return True
            return False

        with started(arguments, ready, base / "log"):
            yield address


@contextlib.contextmanager
def soap() -> Iterator[str]:
    """A SOAP service; gives its address. Below ``/secure`` it wants to know that it is the user ``app``."""
    with folder() as base:
        port = free_port()
        arguments = [sys.executable, "-W", "ignore", "-m", "tests.support.soap_server", str(port), PASSWORD]
        root = str(pathlib.Path(__file__).parents[2])
        with started(arguments, answers(port), base / "log", {"PATH": os.defpath, "PYTHONPATH": root}, ourselves=True):
            yield f"http://127.0.0.1:{port}"


#: What a device of the community ``public`` answers when it is there: a question by SNMP 2c for its uptime.
_UPTIME = bytes.fromhex("302902010104067075626c6963a01c02040000000702010002010030 0e300c06082b060102010103000500")


@contextlib.contextmanager
def snmpd() -> Iterator[Service]:
    """A device: ``public`` may read, ``private`` write, the users ``plain`` (SHA) and ``app`` (SHA-256, AES) too."""
    server = program("snmpd")
    with folder() as base:
        port = free_port()
        (base / "conf").write_text(
            f"rocommunity public 127.0.0.1\nrwcommunity private 127.0.0.1\ncreateUser plain SHA {PASSWORD}\n"
            f"createUser app SHA-256 {PASSWORD} AES {PASSWORD}-too\nrouser plain auth\nrwuser app priv\n"
        )
        environment = {"PATH": os.defpath, "SNMP_PERSISTENT_DIR": str(base), "MIBS": ""}
        arguments = [server, "-f", "-Lo", "-C", "-c", str(base / "conf"), "-p", str(base / "pid")]

        def ready() -> bool:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
                asking.settimeout(0.2)
                asking.sendto(_UPTIME, ("127.0.0.1", port))
                with contextlib.suppress(OSError):
                    return bool(asking.recv(1500))
                return False

        with started([*arguments, f"udp:127.0.0.1:{port}"], ready, base / "log", environment):
            yield Service(port, base, "app")


@contextlib.contextmanager
def samba(*settings: str) -> Iterator[Service]:
    """Samba with the share ``files`` for the user ``app``; the folder is the share's."""
    server, passwords = program("smbd"), program("pdbedit")
    user = "daemon" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    with folder() as base:
        base.chmod(0o755)
        share, port = base / "files", free_port()
        share.mkdir()
        share.chmod(0o777)
        (base / "who").write_text(f"{user} = app\n")
        (base / "conf").write_text(
            "[global]\nworkgroup = TESTS\nserver role = standalone server\nload printers = no\nprinting = bsd\n"
            f"interfaces = 127.0.0.1\nbind interfaces only = yes\nsmb ports = {port}\ndisable netbios = yes\n"
            f"server min protocol = SMB2_02\nusername map = {base}/who\nmap to guest = never\n"
            "server smb encrypt = desired\nserver multi channel support = no\n"
            + "".join(
                f"{name} = {base}/state\n"
                for name in (
                    *("private dir", "state directory", "cache directory", "lock directory", "pid directory"),
                    *("ncalrpc dir", "binddns dir"),
                )
            )
            + "".join(f"{one}\n" for one in settings)
            + f"[files]\npath = {share}\nread only = no\n"
        )
        (base / "state").mkdir()
        arguments = ["-s", str(base / "conf")]
        said = subprocess.run(
            [passwords, *arguments, "-a", "-t", "-u", user], input=f"{PASSWORD}\n{PASSWORD}\n", text=True,
            capture_output=True,
        )  # fmt: skip
        assert said.returncode == 0, said.stdout + said.stderr
        command = [server, *arguments, "--foreground", "--no-process-group", "--debug-stdout"]
        with started(command, answers(port), base / "log", ourselves=True) as process:
            yield Service(port, share, "app", process=process)


#: A server that speaks MongoDB's protocol, twice: plain and with TLS, each for its own documents and the user ``app``.
_SECANTUS = """
import sys, threading
from pymongo import MongoClient
from secantus import SecantusDBServer
folder, password, *ports = sys.argv[1:]
tls = {name: f"{folder}/{file}" for name, file in (
    ("tls_cert_file", "server.crt"), ("tls_key_file", "server.key"), ("tls_ca_file", "ca.crt"))}
for name, port, more in (("plain", ports[0], {}), ("tls", ports[1], tls)):
    own = {"storage_path": f"{folder}/{name}", "cache_size": "64M"}
    with SecantusDBServer(**own) as open_to_all:
        with MongoClient(open_to_all.uri) as client:
            roles = [{"role": "readWrite", "db": "shop"}]
            client.admin.command("createUser", "app", pwd=password, roles=roles)
            client["$external"].command("createUser", "CN=client", mechanisms=["MONGODB-X509"], roles=roles)
    SecantusDBServer(port=int(port), require_auth=True, **own, **more).start()
threading.Event().wait()
"""


@contextlib.contextmanager
def secantus(certificates: pathlib.Path) -> Iterator[Service]:
    """SecantusDB, which speaks MongoDB's protocol, as the member of the replica set ``secantus``."""
    with folder() as base:
        _certificates(base, certificates)
        port, tls_port = free_port(), free_port()
        arguments = [sys.executable, "-W", "ignore", "-c", _SECANTUS, str(base), PASSWORD, str(port), str(tls_port)]
        environment = {"PATH": os.defpath, "HOME": str(base)}
        with started(arguments, answers(tls_port), base / "log", environment, ourselves=True) as process:
            yield Service(port, base, "app", tls_port, process)
