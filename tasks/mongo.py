"""MONGO: documents of MongoDB, found, changed and aggregated; pymongo's asyncio client on a loop of its own.

Types of BSON that JSON does not have go in as MongoDB's Extended JSON says ({"$oid": …}, {"$date": …}) and come out
plainly: ids and exact decimals as text, times in ISO 8601, bytes in base64. Members of a replica set that a server
names must be where the operator allows.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Annotated, Any, Literal

import msgspec

from ..engine import ports, values
from . import blocking, extras, fence, host, rows, scram, sql, tls
from . import definition as definitions
from .definition import invalid, missing
from .host import about

TASK = "MONGO"
PORT = 27017
#: What may come in: the documents, and as much again around them.
_BYTES_MAX = 2 * values.VALUE_BYTES_MAX
_AUTHENTICATION_FAILED = 18
#: What each command takes beside the collection; what it needs first.
_TAKES = {
    "find": ("filter", "projection", "sort", "skip", "limit", "max_documents"),
    "insert": ("documents",),
    "update": ("update", "filter", "many", "upsert"),
    "delete": ("filter", "many"),
    "aggregate": ("pipeline", "max_documents"),
    "command": ("run",),
}
_NEEDS = {"insert": "documents", "update": "update", "delete": "filter", "aggregate": "pipeline", "command": "run"}
_Object = dict[str, Any]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class MongoInputs(host.HostInputs, kw_only=True):
    """The inputs of MONGO."""

    port: Annotated[host.Port | None, about("Default: 27017.")] = None
    mechanism: Annotated[
        Literal["SCRAM", "MONGODB-X509"],
        about("How we log in: SCRAM with username and password, MONGODB-X509 with client_cert. Default: SCRAM."),
    ] = "SCRAM"
    auth_source: Annotated[str, about("The database that knows the user. Default: admin.")] = "admin"
    replica_set: Annotated[
        str | None, about("The replica set whose primary is to be found, through any member. Default: just this host.")
    ] = None
    database: Annotated[str, about("The database.")]
    command: Annotated[
        Literal["find", "insert", "update", "delete", "aggregate", "command"],
        about("What to do; command runs any command of the database. Default: find."),
    ] = "find"
    collection: Annotated[str | None, about("The collection; all but command need it.")] = None
    filter: Annotated[_Object | None, about("For find, update and delete: which documents. Default for find: all.")] = (
        None
    )
    projection: Annotated[_Object | None, about("For find: which fields.")] = None
    sort: Annotated[_Object | None, about("For find: {field: 1 or -1}, in their order.")] = None
    skip: Annotated[_Count | None, about("For find: how many to pass over. Default: 0.")] = None
    limit: Annotated[_Count | None, about("For find: how many at most. Default: all.")] = None
    documents: Annotated[list[_Object] | None, about("For insert: the documents.")] = None
    update: Annotated[_Object | list[_Object] | None, about("For update: what to change, such as {$set: …}.")] = None
    many: Annotated[bool | None, about("For update and delete: all that fit, not the first. Default: false.")] = None
    upsert: Annotated[bool | None, about("For update: insert a document if none fits. Default: false.")] = None
    pipeline: Annotated[list[_Object] | None, about("For aggregate: its stages.")] = None
    run: Annotated[_Object | None, about("For command: the command, its name first, such as {collStats: …}.")] = None
    max_documents: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None,
        about("For find and aggregate: more documents than that are a failure. Default: 10000."),
    ] = None

    @property
    def where(self) -> int:
        """The port in force."""
        return self.port or PORT


class MongoOutput(msgspec.Struct, kw_only=True):
    """The output of MONGO."""

    documents: Any = msgspec.UNSET  #: with find and aggregate
    ids: Any = msgspec.UNSET  #: with insert
    matched: int | msgspec.UnsetType = msgspec.UNSET
    modified: int | msgspec.UnsetType = msgspec.UNSET
    upserted_id: Any = msgspec.UNSET
    deleted: int | msgspec.UnsetType = msgspec.UNSET
    result: Any = msgspec.UNSET  #: with command


def _check(inputs: MongoInputs) -> None:
    host.check(TASK, inputs)
    if inputs.mechanism == "MONGODB-X509":
        if inputs.client_cert is None:
            raise missing(TASK, "client_cert", "the certificate that 'mechanism' logs in with")
        if inputs.password is not None:
            raise invalid(TASK, "password", "the certificate takes its place with 'mechanism'")
    elif inputs.username is not None and inputs.password is None:
        raise missing(TASK, "password", "the password of 'username'")
    if not inputs.database or any(character in '/\\. "$\0' for character in inputs.database):
        raise invalid(TASK, "database", "expected the name of a database")
    if inputs.command != "command" and not inputs.collection:
        raise missing(TASK, "collection", f"the command {inputs.command} is about it")
    if inputs.collection is not None and (inputs.collection.startswith("$") or "\0" in inputs.collection):
        raise invalid(TASK, "collection", "expected the name of a collection")
    for name in sorted({one for names in _TAKES.values() for one in names} - set(_TAKES[inputs.command])):
        if getattr(inputs, name) is not None:
            raise invalid(TASK, name, f"the command {inputs.command} does not use it")
    needed = _NEEDS.get(inputs.command)
    if needed is not None and getattr(inputs, needed) is None:
        raise missing(TASK, needed, f"the command {inputs.command} needs it")
    for name in ("documents", "run", "update"):
        if getattr(inputs, name) is not None and not getattr(inputs, name):
            raise invalid(TASK, name, "it is empty")


class _Session:
    """What is done on the library's loop."""

    def __init__(self, libraries: list[Any], inputs: MongoInputs) -> None:
        self._library, self._problems, self._extended, self._malformed = libraries
        self._inputs = inputs

    async def run(self, loop: fence.Loop) -> MongoOutput:
        """Do what is asked; raises ``host.Failed``."""
        problems = self._problems
        try:
            async with self._client() as client:
                return await self._performed(client[self._inputs.database])
        except problems.PyMongoError as error:
            raise self._explained(error, loop) from None
        except (OSError, *host.GARBAGE) as error:
            where = f"{self._inputs.hostname}:{self._inputs.where}"
            told = fence.explained(error, loop, self._inputs, self._inputs.where)
            raise told or host.Failed(f"what {where} says cannot be used: {host.quoted(str(error))}") from None

    def _client(self) -> Any:
        """Return the client, which reads certificates from files when it is made."""
        inputs, wait_ms = self._inputs, int(self._inputs.connect_timeout * 1000)
        options: dict[str, Any] = {}
        if inputs.mechanism == "MONGODB-X509":
            options |= {"authMechanism": inputs.mechanism, "username": inputs.username}
        elif inputs.username is not None:
            options |= {"username": inputs.username, "password": inputs.password, "authSource": inputs.auth_source}
        if inputs.replica_set is not None:
            options["replicaSet"] = inputs.replica_set
        with contextlib.ExitStack() as files:
            if inputs.with_tls:
                # Whom a certificate names for questions about it is nobody the operator could judge: it is not asked.
                options |= {"tls": True, "tlsDisableOCSPEndpointCheck" if inputs.verify_ssl else "tlsInsecure": True}
            if inputs.cacert is not None:
                options["tlsCAFile"] = files.enter_context(tls.as_file(inputs.cacert))
            if inputs.client_cert is not None:
                pair = f"{inputs.client_cert}\n{inputs.client_key or ''}"
                options["tlsCertificateKeyFile"] = files.enter_context(tls.as_file(pair))
            return self._library.AsyncMongoClient(
                inputs.hostname.strip("[]"), inputs.where, directConnection=inputs.replica_set is None,
                connectTimeoutMS=wait_ms, serverSelectionTimeoutMS=wait_ms, appname="headrace", tz_aware=True,
                datetime_conversion="DATETIME_AUTO", uuidRepresentation="standard",
                unicode_decode_error_handler="replace", **options,
            )  # fmt: skip

    def _given(self, name: str) -> Any:
        """Return an input with its Extended JSON understood."""
        try:
            return self._extended.loads(msgspec.json.encode(getattr(self._inputs, name)).decode())
        except (self._malformed.BSONError, *host.GARBAGE) as error:
            raise host.Failed(f"'{name}' is not what Extended JSON allows: {host.quoted(str(error))}") from None

    async def _performed(self, database: Any) -> MongoOutput:
        inputs = self._inputs
        if inputs.command == "command":
            return MongoOutput(result=_raw(await database.command(self._given("run"))))
        collection = database[inputs.collection]
        match inputs.command:
            case "find":
                cursor = collection.find(
                    self._given("filter") or {}, self._given("projection"), skip=inputs.skip or 0,
                    limit=inputs.limit or 0, sort=list((self._given("sort") or {}).items()) or None,
                )  # fmt: skip
                return MongoOutput(documents=await self._documents(cursor))
            case "aggregate":
                return MongoOutput(documents=await self._documents(await collection.aggregate(self._given("pipeline"))))
            case "insert":
                told = await collection.insert_many(self._given("documents"))
                return MongoOutput(ids=_raw(told.inserted_ids))
            case "update":
                update = collection.update_many if inputs.many else collection.update_one
                asked = self._given("filter") or {}
                told = await update(asked, self._given("update"), upsert=inputs.upsert or False)
                return MongoOutput(
                    matched=told.matched_count, modified=told.modified_count, upserted_id=_raw(told.upserted_id)
                )
        delete = collection.delete_many if inputs.many else collection.delete_one
        return MongoOutput(deleted=(await delete(self._given("filter"))).deleted_count)

    async def _documents(self, cursor: Any) -> list[msgspec.Raw]:
        most = self._inputs.max_documents or sql.ROWS_MAX
        found: list[msgspec.Raw] = []
        total = 0
        async with cursor:
            async for document in cursor:
                found.append(_raw(document))
                total += len(bytes(found[-1])) + 1
                if len(found) > most:
                    raise host.Failed(f"there are more than {most:,} documents: ask for fewer, or more max_documents")
                if total > values.VALUE_BYTES_MAX:
                    raise host.Failed(f"the documents are larger than {values.VALUE_BYTES_MAX >> 20} MiB as JSON")
        return found

    def _explained(self, error: Any, loop: fence.Loop) -> host.Failed:
        problems, inputs = self._problems, self._inputs
        where = f"{inputs.hostname}:{inputs.where}"
        if isinstance(error, problems.BulkWriteError):
            first = (error.details.get("writeErrors") or error.details.get("writeConcernErrors") or [{}])[0]
            done = error.details.get("nInserted", 0)
            return host.Failed(f"{done} were inserted, then: {host.quoted(str(first.get('errmsg', '')))}")
        if isinstance(error, problems.OperationFailure):
            said = host.quoted(str((error.details or {}).get("errmsg") or error))
            if error.code == _AUTHENTICATION_FAILED:
                shown = "the certificate" if inputs.password is None else f"the password of {inputs.username}"
                return host.Failed(f"{where} refused {shown}: {said}")
            return host.Failed(f"{said} ({error.code})", passing=error.has_error_label("RetryableWriteError"))
        if isinstance(error, problems.ServerSelectionTimeoutError):
            if inputs.replica_set is None:
                return host.explained(TimeoutError(), inputs, inputs.where)
            words = host.quoted(str(error).partition(", Timeout:")[0])
            waited = f"within {inputs.connect_timeout:g} s"
            return host.Failed(f"no primary of {inputs.replica_set} through {where} {waited}: {words}", passing=True)
        if isinstance(error, problems.ConnectionFailure):
            told = fence.explained(error, loop, inputs, inputs.where) if loop.failed is not None else None
            return told or host.Failed(f"{where} closed the connection: {host.quoted(str(error))}", passing=True)
        return host.Failed(host.quoted(f"{type(error).__name__}: {error}"))


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(rows.as_json(value))


def _libraries() -> list[Any]:
    names = ("pymongo", "pymongo.errors", "bson.json_util", "bson.errors")
    _guard(extras.require("pymongo.asynchronous.auth", extra="mongo", task=TASK))
    return [extras.require(name, extra="mongo", task=TASK) for name in names]


@functools.cache
def _guard(logins: Any) -> None:
    """Have the library refuse what no server should ask for; once."""
    parse = logins._parse_scram_response

    def careful(response: bytes) -> dict[bytes, bytes]:
        told: dict[bytes, bytes] = parse(response)
        if b"i" in told:
            scram.check(int(told[b"i"]))
        return told

    logins._parse_scram_response = careful


async def _attempt(inputs: MongoInputs, settings: definitions.Settings) -> MongoOutput:
    libraries = await blocking.call(_libraries)
    # The client would look for a server again and again that is not there, and not say why.
    async with host.stream(inputs, inputs.where, settings.egress, limit=65536):
        pass
    return await fence.call(_Session(libraries, inputs).run, settings.egress, bytes_max=_BYTES_MAX)


async def _run(settings: definitions.Settings, inputs: MongoInputs, context: ports.TaskContext) -> MongoOutput:
    attempt = functools.partial(_attempt, inputs, settings)
    shown = f"{inputs.command} on {inputs.hostname}:{inputs.where}"
    return await host.performed(shown, attempt, inputs, context, settings, repeatable=_is_repeatable(inputs))


def _is_repeatable(inputs: MongoInputs) -> bool:
    if inputs.command == "aggregate":
        return not any({"$out", "$merge"} & set(stage) for stage in inputs.pipeline or ())
    return inputs.command == "find"


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[MongoInputs]:
    """Return the task type MONGO."""
    return definitions.TaskDefinition(
        name=TASK,
        summary="Find, change and aggregate documents of MongoDB",
        description="One command on one collection, or any command of a database.",
        inputs=MongoInputs,
        output=MongoOutput,
        run=functools.partial(_run, settings),
        idempotent=_is_repeatable,
        check=_check,
        aliases=("MONGODB",),
        input_aliases=host.ALIASES,
    )
