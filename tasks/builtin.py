"""The task types that come with Headrace: where each is defined, and what it is called.

A type's module is imported when somebody first asks for the type: all of them together would be a sixth of what a start
of the daemon costs, and take 3.4 MB of which a daemon rarely needs more than a little. Read by ``registry``.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Module, and function if that is not ``definition`` → the type's own name, then its others.
TYPES: Mapping[str, tuple[str, ...]] = {
    "amqp": ("AMQP", "RABBITMQ"),
    "ansible": ("ANSIBLE",),
    "aws": ("AWS",),
    "azure": ("AZURE",),
    "chat:msteams": ("MSTEAMS",),
    "chat:slack": ("SLACK",),
    "command": ("COMMAND",),
    "docker": ("DOCKER", "PODMAN"),
    "file": ("FILE",),
    "ftp": ("FTP", "FTPS"),
    "git": ("GIT",),
    "google": ("GOOGLE",),
    "imap": ("IMAP",),
    "k8s": ("K8S", "KUBERNETES"),
    "kafka": ("KAFKA",),
    "ldap": ("LDAP",),
    "mongo": ("MONGO", "MONGODB"),
    "mqtt": ("MQTT",),
    "mysql": ("MYSQL", "SQLMY"),
    "openai": ("OPENAI", "CHAT"),
    "prometheus": ("PROMETHEUS",),
    "ps": ("PS", "POWERSHELL"),
    "question": ("INPUT",),
    "redis": ("REDIS", "VALKEY"),
    "rest": ("REST", "HTTP"),
    "s3": ("S3",),
    "scp": ("SCP",),
    "sftp": ("SFTP",),
    "sleep": ("SLEEP",),
    "smb": ("SMB", "CIFS"),
    "smtp": ("SMTP", "EMAIL"),
    "snmp": ("SNMP",),
    "soap": ("SOAP",),
    "sqlite": ("SQLITE",),
    "sqlmssql": ("SQLMSSQL", "MSSQL"),
    "sqloracle": ("SQLORACLE", "ORACLE"),
    "sqlpg": ("SQLPG", "POSTGRES", "SQLPS"),
    "ssh": ("SSH",),
    "terraform": ("TERRAFORM", "OPENTOFU", "TOFU"),
    "vault": ("VAULT",),
    "webdav": ("WEBDAV",),
    "xmlrpc": ("XMLRPC",),
}
