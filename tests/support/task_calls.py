"""A call of every task type that a server holds in the middle: what tests/e2e/test_every_task_type.py tries.

Each registered type needs a row here, and two if it depends on the inputs whether a call may be repeated. ``{port}``
and ``{url}`` in the inputs are the server that holds the call, ``{secret}`` is a secret; it has to stand where records
show ``[protected]`` (an input called like a credential, one of the type's ``secret_inputs``, one in
``protect_inputs``). The server gets a connection, or the row says ``connects=False``: then the call is in the middle as
soon as it has begun. ``says`` is what the server greets with and answers, where that brings a client to telling its
secret; ``tells`` says that it does.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.support import tds_double
from tests.support.holding import Place

LOGIN = {"hostname": "127.0.0.1", "port": "{port}", "username": "u", "password": "{secret}"}
AWS = {"aws_access_key_id": "AKIA", "aws_secret_access_key": "{secret}", "endpoint_url": "{url}"}
AZURE = {"tenant_id": "t", "client_id": "c", "client_secret": "{secret}", "login_url": "{url}", "path": "/x"}
GOOGLE = {
    "key": {"client_email": "m", "private_key": "{secret}", "token_uri": "{url}"}, "discovery_url": "{url}",
    "api_name": "a", "api_version": "v1", "collection": "c",
}  # fmt: skip
BASIC = {"url": "{url}", "username": "u", "password": "{secret}"}
K8S = {"url": "{url}", "token": "{secret}"}
VAULT = {"host": "{url}", "token": "{secret}", "secret_path": "x"}
#: For types that start a program: the one of ``PROGRAMS`` finds the server by this word in its folder.
WORD = "held-by-{port}"
PROGRAMS = ("ansible-playbook", "tofu")
PROGRAM = """#!/bin/bash
word=$(grep -rhoa 'held-by-[0-9]*' . | head -n 1)
exec 3<>/dev/tcp/127.0.0.1/${word#held-by-}
cat <&3
"""
SHELL = ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/{port}; cat <&3"]
FTP = [b"220 hello\r\n", b"331 and the password?\r\n"]
SMTP = [b"220 hello ESMTP\r\n", b"250-hello\r\n250 AUTH PLAIN\r\n"]
TDS = [b"", *tds_double.opening()]
ARGS = {"args": ["{secret}"], "protect_inputs": ["args"]}
#: Statements that take longer than any test waits, but can be stopped.
ENDLESS_SQL = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i), ? FROM n"
ENDLESS_TEMPLATE = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}{{ key }}"


@dataclasses.dataclass(frozen=True)
class Row:
    """One call: whether it is done ``again`` after the daemon was killed in the middle of it, or reported."""

    type: str
    again: bool
    given: Mapping[str, Any]
    connects: bool = True
    tells: bool = False
    says: Sequence[bytes] = ()

    @property
    def name(self) -> str:
        """What tests call it."""
        return f"{self.type} {'again' if self.again else 'once'}"

    def inputs(self, place: Place, secret: str) -> dict[str, Any]:
        """Return what the call is given when this server holds it."""
        text = json.dumps(self.given).replace('"{port}"', str(place.port)).replace("{port}", str(place.port))
        return json.loads(text.replace("{url}", place.url).replace("{secret}", secret))


ROWS = (
    Row("AMQP", False, {**LOGIN, "queue": "q", "text": "x"}),
    Row("AMQP", True, {**LOGIN, "queue": "q", "command": "receive", "acknowledge": False}),
    Row("ANSIBLE", False, {"playbook": f"# {WORD}\n[]", "extra_vars": {"key": "{secret}"}, "inventory": ["x"],
                           "protect_inputs": ["extra_vars"]}),
    Row("ANSIBLE", True, {"playbook": f"# {WORD}\n[]", "extra_vars": {"key": "{secret}"}, "inventory": ["x"],
                          "protect_inputs": ["extra_vars"], "check_mode": True}),
    Row("AWS", False, {**AWS, "client": "ec2", "service": "start_instances", "parameters": {"InstanceIds": ["i"]}}),
    Row("AWS", True, {**AWS, "client": "ec2", "service": "describe_instances"}),
    Row("AZURE", False, {**AZURE, "method": "post"}, tells=True),
    Row("AZURE", True, AZURE, tells=True),
    Row("COMMAND", False, {"command": SHELL, "stdin": "{secret}", "protect_inputs": ["stdin"]}),
    Row("DOCKER", False, {"url": "{url}", "command": "run", "image": "x", "env": {"KEY": "{secret}"}}),
    Row("DOCKER", True, {"url": "{url}", "command": "pull", "image": "x", "username": "u", "password": "{secret}"}),
    Row("FILE", True, {"command": "template", "template": ENDLESS_TEMPLATE, "values": {"key": "{secret}"},
                       "protect_inputs": ["values"]}, connects=False),
    Row("FTP", False, {**LOGIN, "command": "mkdir", "path": "x", "use_tls": False}, tells=True, says=FTP),
    Row("FTP", True, {**LOGIN, "command": "list", "path": "x", "use_tls": False}, tells=True, says=FTP),
    Row("GIT", False, {"repository_url": "{url}/x", "username": "u", "password": "{secret}", "command": "tag",
                       "tag": "x", "httpCookie": "session={secret}"}, tells=True),
    Row("GIT", True, {"repository_url": "{url}/x", "username": "u", "password": "{secret}",
                      "httpCookie": "session={secret}"}, tells=True),
    Row("GOOGLE", False, {**GOOGLE, "request": "insert"}),
    Row("GOOGLE", True, {**GOOGLE, "request": "list"}),
    Row("IMAP", False, {**LOGIN, "use_tls": False, "command": "delete", "uids": [1]}),
    Row("IMAP", True, {**LOGIN, "use_tls": False}),
    Row("INPUT", True, {"request": "which?", "reference": "{secret}", "protect_inputs": ["reference"]},
        connects=False),
    Row("K8S", False, {**K8S, "command": "delete", "kind": "Pod", "name": "x"}, tells=True),
    Row("K8S", True, {**K8S, "command": "list", "kind": "Pod"}, tells=True),
    Row("KAFKA", False, {**LOGIN, "topic": "t", "text": "x"}),
    Row("KAFKA", True, {**LOGIN, "topic": "t", "command": "receive"}),
    Row("LDAP", False, {**LOGIN, "command": "delete", "dn": "cn=x"}, tells=True),
    Row("LDAP", True, LOGIN, tells=True),
    Row("MONGO", False, {**LOGIN, "database": "d", "collection": "c", "command": "insert", "documents": [{"a": 1}]}),
    Row("MONGO", True, {**LOGIN, "database": "d", "collection": "c"}),
    Row("MQTT", False, {**LOGIN, "topic": "t", "text": "x"}, tells=True),
    Row("MQTT", True, {**LOGIN, "topic": "t", "command": "receive"}, tells=True),
    Row("MSTEAMS", False, {"url": "{url}/hooks/{secret}", "text": "x"}, tells=True),
    Row("MYSQL", False, {**LOGIN, "execute": "DELETE FROM x"}),
    Row("MYSQL", True, {**LOGIN, "fetch": "SELECT 1", "read_only": True}),
    Row("OPENAI", True, {"url": "{url}", "key": "{secret}", "model": "m", "prompt": "x"}, tells=True),
    Row("PROMETHEUS", True, {"url": "{url}", "token": "{secret}", "query": "up"}, tells=True),
    Row("PS", False, {**LOGIN, "script": "x"}),
    Row("REDIS", False, {**LOGIN, "command": "INCR", "args": ["k"]}, tells=True),
    Row("REDIS", True, {**LOGIN, "command": "GET", "args": ["k"]}, tells=True),
    Row("REST", False, {**BASIC, "method": "post"}, tells=True),
    Row("REST", True, BASIC, tells=True),
    Row("S3", False, {**AWS, "command": "delete", "bucket": "b", "path": "x"}),
    Row("S3", True, {**AWS, "command": "list", "bucket": "b"}),
    Row("SCP", True, {**LOGIN, "src": "x", "dst": "headrace:x"}),
    Row("SFTP", False, {**LOGIN, "command": "mkdir", "path": "x"}),
    Row("SFTP", True, {**LOGIN, "command": "list", "path": "x"}),
    Row("SLACK", False, {"url": "{url}/hooks/{secret}", "text": "x"}, tells=True),
    Row("SLEEP", True, {"seconds": 3600}, connects=False),
    Row("SMB", False, {**LOGIN, "share": "s", "command": "mkdir", "path": "x"}),
    Row("SMB", True, {**LOGIN, "share": "s", "command": "list", "path": "x"}),
    Row("SMTP", False, {**LOGIN, "from": "a@b.example", "to": "c@d.example", "use_tls": False}, tells=True, says=SMTP),
    Row("SNMP", False, {"hostname": "127.0.0.1", "port": "{port}", "community": "{secret}", "command": "set",
                        "values": {"1.3.6.1.2.1.1.5.0": "x"}, "read_timeout": 60}, connects=False),
    Row("SNMP", True, {"hostname": "127.0.0.1", "port": "{port}", "community": "{secret}", "read_timeout": 60,
                       "oids": ["1.3.6.1.2.1.1.5.0"]}, connects=False),
    Row("SOAP", False, {"wsdl": "{url}/x?wsdl", "operation": "x", "token": "{secret}", "url": "{url}"}),
    Row("SQLITE", False, {"fetchval": ENDLESS_SQL, "args": ["{secret}"], "protect_inputs": ["args"],
                          "database": "headrace:x"}, connects=False),
    Row("SQLITE", True, {"fetchval": ENDLESS_SQL, "args": ["{secret}"], "protect_inputs": ["args"]}, connects=False),
    Row("SQLMSSQL", False, {**LOGIN, "execute": "DELETE FROM x WHERE y = %s", **ARGS}, tells=True, says=TDS),
    Row("SQLMSSQL", True, {**LOGIN, "fetch": "SELECT %s", **ARGS, "read_only": True}, tells=True, says=TDS),
    Row("SQLORACLE", False, {**LOGIN, "database": "x", "execute": "DELETE FROM x"}),
    Row("SQLORACLE", True, {**LOGIN, "database": "x", "fetch": "SELECT 1 FROM dual", "read_only": True}),
    Row("SQLPG", False, {**LOGIN, "execute": "DELETE FROM x"}),
    Row("SQLPG", True, {**LOGIN, "fetch": "SELECT 1", "read_only": True}),
    Row("SSH", False, {**LOGIN, "script": "true", "connect_tries": 1}),
    Row("TERRAFORM", False, {"configuration": f"# {WORD}", "env": {"KEY": "{secret}"}, "command": "apply"}),
    Row("TERRAFORM", True, {"configuration": f"# {WORD}", "env": {"KEY": "{secret}"}}),
    Row("VAULT", False, {**VAULT, "mode": "purge"}, tells=True),
    Row("VAULT", True, VAULT, tells=True),
    Row("WEBDAV", False, {**BASIC, "command": "mkdir", "path": "x"}, tells=True),
    Row("WEBDAV", True, {**BASIC, "command": "list", "path": "x"}, tells=True),
    Row("XMLRPC", False, {**BASIC, "method": "x"}, tells=True),
)  # fmt: skip
