"""A real Dovecot on loopback: one user, a mailbox in a folder, with and without TLS from the start."""

from __future__ import annotations

import contextlib
import getpass
import grp
import os
import pathlib
import subprocess
import time
from collections.abc import Iterator

from tests.support import services

USER = "ada"
#: What is called otherwise since 2.4, which Debian 13 has.
_NAMES_23 = """protocols = imap
mail_location = maildir:{mail}
ssl_cert = <{certificates}/server.crt
ssl_key = <{certificates}/server.key
disable_plaintext_auth = no
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={who} gid={group} home={mail}
}}"""
_NAMES_24 = """dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
protocols = imap
mail_driver = maildir
mail_path = {mail}
ssl_server_cert_file = {certificates}/server.crt
ssl_server_key_file = {certificates}/server.key
auth_allow_cleartext = yes
passdb static {{
  password = {password}
}}
userdb static {{
  fields {{
    uid = {who}
    gid = {group}
    home = {mail}
  }}
}}"""


@contextlib.contextmanager
def dovecot(certificates: pathlib.Path) -> Iterator[services.Service]:
    """Serve IMAP: ``port`` with STARTTLS, ``tls_port`` with TLS; whoever has the password is let in."""
    program = services.program("dovecot")
    with services.folder() as base:
        port, tls_port = services.free_port(), services.free_port()
        mail = base / "mail"
        mail.mkdir()
        services.own(mail)
        who = services.someone() or getpass.getuser()
        group = grp.getgrgid(os.getegid() if services.someone() is None else 65534).gr_name
        own = "" if services.someone() else f"default_internal_user = {who}\ndefault_login_user = {who}\n"
        version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
        names = _NAMES_24 if version >= "2.4" else _NAMES_23
        given = {"mail": mail, "certificates": certificates, "password": services.PASSWORD, "who": who, "group": group}
        (base / "dovecot.conf").write_text(f"""
{names.format(**given)}
base_dir = {base}/run
log_path = {base}/log
{own}default_internal_group = {group}
first_valid_uid = 1
ssl = yes
auth_mechanisms = plain login
service imap-login {{
  chroot =
  inet_listener imap {{
    {"listen" if names is _NAMES_24 else "address"} = 127.0.0.1
    port = {port}
  }}
  inet_listener imaps {{
    {"listen" if names is _NAMES_24 else "address"} = 127.0.0.1
    port = {tls_port}
  }}
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
namespace inbox {{
  inbox = yes
  separator = /
}}
""")
        base.chmod(0o755)
        with (base / "said").open("wb") as said:
            process = subprocess.Popen([program, "-F", "-c", str(base / "dovecot.conf")], stdout=said, stderr=said)
        try:
            ready = services.answers(port)
            while not ready():
                assert process.poll() is None, (base / "said").read_text() + (base / "log").read_text()
                time.sleep(0.02)
            yield services.Service(port, base, USER, tls_port, process)
        finally:
            process.terminate()
            process.wait()
