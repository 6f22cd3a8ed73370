"""A machine that speaks WinRM, as far as a script needs it: a double, made from the public specifications.

WS-Management with shells is [MS-WSMV], PowerShell inside of it [MS-PSRP]. It shows what our side makes of the protocol,
not what Windows makes of ours. Scripts do not run: ``says`` decides what comes of one.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import html
import re
import struct
import uuid
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

from aiohttp import web

_SPACES = {
    "s": "http://www.w3.org/2003/05/soap-envelope",
    "a": "http://schemas.xmlsoap.org/ws/2004/08/addressing",
    "rsp": "http://schemas.microsoft.com/wbem/wsman/1/windows/shell",
    "wsman": "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd",
}
_WITHIN = " ".join(f'xmlns:{name}="{space}"' for name, space in _SPACES.items())
_TIMED_OUT = (
    '<s:Fault><s:Code><s:Value>s:Receiver</s:Value></s:Code><s:Detail><f:WSManFault xmlns:f="http://schemas.microsoft.'
    'com/wbem/wsman/1/wsmanfault" Code="2150858793" Machine="double"><f:Message>timed out</f:Message></f:WSManFault>'
    "</s:Detail></s:Fault>"
)
#: Types of messages ([MS-PSRP] 2.2.1).
_CAPABILITY, _INIT, _POOL_STATE, _CREATE = 0x00010002, 0x00010004, 0x00021005, 0x00021006
_OUTPUT, _ERROR, _STATE = 0x00041004, 0x00041005, 0x00041006


@dataclasses.dataclass
class Said:
    """What comes of a script: lines, whether it goes on for ever, and with which error it ends."""

    lines: list[str] = dataclasses.field(default_factory=list)
    error: str = ""
    endless: bool = False


@dataclasses.dataclass
class Machine:
    """Its state, and its handler for aiohttp."""

    username: str
    password: str
    says: Callable[[str], Said]
    scripts: list[tuple[str, str]] = dataclasses.field(default_factory=list)  #: what wraps it, and the script
    actions: list[str] = dataclasses.field(default_factory=list)
    running: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    _sent: int = 0
    _partly: bytes = b""
    _pool: str = ""
    _pipeline: str = ""
    _said: Said | None = None
    _opening: list[tuple[int, str]] = dataclasses.field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        wanted = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {wanted}":
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="WSMAN"'})
        envelope = ElementTree.fromstring(await request.read())
        action = envelope.findtext("s:Header/a:Action", "", _SPACES).rpartition("/")[2]
        self.actions.append(action)
        body = envelope.find("s:Body", _SPACES)
        status, said = await getattr(self, f"_{action.lower()}")(body)
        relates = envelope.findtext("s:Header/a:MessageID", "", _SPACES)
        header = f"<s:Header><a:RelatesTo>{relates}</a:RelatesTo></s:Header>"
        text = f"<s:Envelope {_WITHIN}>{header}<s:Body>{said}</s:Body></s:Envelope>"
        return web.Response(text=text, status=status, content_type="application/soap+xml")

    async def _create(self, body):
        self._pool = body.find("rsp:Shell", _SPACES).get("ShellId")
        kinds = [kind for kind, _ in self._messages(body.find(".//{*}creationXml").text)]
        assert kinds == [_CAPABILITY, _INIT]
        versions = {"protocolversion": "2.3", "PSVersion": "2.0", "SerializationVersion": "1.1.0.1"}
        capability = "".join(f'<Version N="{name}">{version}</Version>' for name, version in versions.items())
        self._opening = [(_CAPABILITY, _object(capability)), (_POOL_STATE, _object('<I32 N="RunspaceState">2</I32>'))]
        return 200, f"<rsp:Shell><rsp:ShellId>{self._pool}</rsp:ShellId></rsp:Shell>"

    async def _command(self, body):
        line = body.find("rsp:CommandLine", _SPACES)
        self._pipeline = line.get("CommandId")
        self._began(line.findtext("rsp:Arguments", "", _SPACES))
        return 200, f"<rsp:CommandResponse><rsp:CommandId>{self._pipeline}</rsp:CommandId></rsp:CommandResponse>"

    async def _send(self, body):
        self._began(body.findtext(".//rsp:Stream", "", _SPACES))
        return 200, "<rsp:SendResponse/>"

    def _began(self, fragments):
        for kind, content in self._messages(fragments):
            assert kind == _CREATE
            wrapper = _text(content.find(".//{*}S[@N='Cmd']"))
            script = _text(content.find(".//{*}LST/{*}Obj/{*}MS/{*}S[@N='V']"))
            self.scripts.append((wrapper, script))
            self._said = self.says(script)

    def _messages(self, fragments):
        """Yield type and content of the messages that are complete ([MS-PSRP] 2.2.4 and 2.2.1)."""
        data = base64.b64decode(fragments)
        while data:
            _, _, flags, length = struct.unpack(">QQBI", data[:21])
            self._partly += data[21 : 21 + length]
            data = data[21 + length :]
            if flags & 2:
                whole, self._partly = self._partly, b""
                yield struct.unpack("<I", whole[4:8])[0], ElementTree.fromstring(whole[40:].decode("utf-8-sig"))

    async def _receive(self, body):
        if self._opening:
            blocks, self._opening = self._opening, []
            return 200, self._stream(blocks, None)
        assert self._said is not None
        blocks = [(_OUTPUT, f"<S>{html.escape(line)}</S>") for line in self._said.lines]
        self.running.set()
        if self._said.endless:
            if not blocks:
                await asyncio.sleep(0.05)
                return 500, _TIMED_OUT
            return 200, self._stream(blocks, self._pipeline)
        failed = [(_ERROR, _error(self._said.error))] if self._said.error else []
        end = (_STATE, _object(f'<I32 N="PipelineState">{5 if failed else 4}</I32>'))
        return 200, self._stream([*blocks, *failed, end], self._pipeline)

    def _stream(self, blocks, pipeline):
        """Return messages, one fragment each ([MS-PSRP] 2.2.4)."""
        said = b""
        for kind, text in blocks:
            self._sent += 1
            ids = uuid.UUID(self._pool).bytes_le + uuid.UUID(pipeline or "0" * 32).bytes_le
            message = struct.pack("<II", 1, kind) + ids + b"\xef\xbb\xbf" + text.encode()
            said += struct.pack(">QQBI", self._sent, 0, 3, len(message)) + message
        return (
            '<rsp:ReceiveResponse><rsp:Stream Name="stdout">'
            f"{base64.b64encode(said).decode()}</rsp:Stream></rsp:ReceiveResponse>"
        )

    async def _signal(self, body):
        return 200, "<rsp:SignalResponse/>"

    async def _delete(self, body):
        return 200, ""


def _object(members):
    return f'<Obj RefId="0"><MS>{members}</MS></Obj>'


def _error(words):
    """An error record ([MS-PSRP] 2.2.3.15)."""
    about = "".join(f'<S N="ErrorCategory_{one}"></S>' for one in ("Activity", "Reason", "TargetName", "TargetType"))
    return (
        f'<Obj RefId="0"><ToString>{html.escape(words)}</ToString><MS><Obj N="Exception" RefId="1"><Props>'
        f'<S N="Message">{html.escape(words)}</S></Props></Obj><Nil N="TargetObject"/>'
        '<S N="FullyQualifiedErrorId">X</S>'
        f'<Nil N="InvocationInfo"/><I32 N="ErrorCategory_Category">0</I32>{about}<S N="ErrorCategory_Message"></S>'
        '<B N="SerializeExtendedInfo">false</B></MS></Obj>'
    )


def _text(element):
    """What a string of CLIXML says: _x000A_ stands for a character ([MS-PSRP] 2.2.5.3.2)."""
    return re.sub("_x([0-9A-F]{4})_", lambda match: chr(int(match[1], 16)), element.text)
