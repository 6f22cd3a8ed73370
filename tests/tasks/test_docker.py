"""DOCKER, with Podman's engine that runs, and engines that lie."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json

import pytest
from aiohttp import web

from headrace.engine import errors
from headrace.tasks import (
    archives,
    definition,
    docker,
    docker_engine,
    docker_images,
    egress,
    local,
    registry,
    stored_files,
    workplace,
)
from tests.support import podman
from tests.support.services import PASSWORD, free_port
from tests.support.task_context import Context
from tests.tasks.test_hosts import host

SECRET = "hush-hush-variable"
ALONE = {"HostConfig": {"NetworkMode": "none"}}


@pytest.fixture(scope="module")
def engine():
    with podman.engine() as running:
        yield running


async def _run(context: Context, settings: definition.Settings, **inputs) -> dict:
    tasks = registry.of(docker.definition(settings))
    try:
        return json.loads(
            await tasks.prepare("DOCKER", json.dumps({"retry_backoff": False, **inputs}).encode()).run(context)
        )
    finally:
        await tasks.aclose()


@pytest.fixture
def ran(context):
    async def run(url: str, command: str = "list", **inputs) -> dict:
        allowed = local.Local(sockets=(url.removeprefix("unix://"),) if url.startswith("unix") else ())
        return await _run(context, definition.Settings(local=allowed), url=url, command=command, **inputs)

    return run


@pytest.fixture
def run(ran, engine):
    async def run(command: str = "run", **inputs) -> dict:
        if command == "run":
            inputs = {"image": podman.IMAGE, "options": ALONE, **inputs}
        return await ran(f"unix://{engine.socket}", command, **inputs)

    return run


async def _failed(context: Context, coroutine) -> errors.TaskFailed:
    with pytest.raises(errors.TaskFailed) as raised:
        await coroutine
    said = raised.value.message + raised.value.output.decode() + context.text
    assert SECRET not in said and PASSWORD not in said
    return raised.value


def _shell(script: str) -> list[str]:
    return ["/bin/busybox", "sh", "-c", script]


async def test_a_container_is_run_to_its_end_and_is_gone(run, engine):
    script = "echo out $X; echo ü >&2; /bin/busybox id -u; /bin/busybox pwd"
    told = await run(args=_shell(script), env={"X": "1 2"}, user="7", working_dir="/tmp")
    assert told.pop("id") and told == {"retcode": 0, "stdout": "out 1 2\n7\n/tmp\n", "stderr": "ü\n"}
    told = await run(entrypoint=["/bin/busybox", "echo"], args=["a", "b"], expected_retcode=[0, 3])
    assert told["stdout"] == "a b\n" and engine.names == []


async def test_a_program_that_fails_is_a_failure_with_its_output(run, context, engine):
    said = await _failed(context, run(args=_shell("echo done; echo why >&2; exit 3"), env={"X": SECRET}))
    assert said.message == "DOCKER run: the program ended with 3: why"
    assert json.loads(said.output)["stdout"] == "done\n" and engine.names == []
    assert (await run(args=_shell("exit 3"), expected_retcode=3))["retcode"] == 3
    said = await _failed(context, run(args=["/nothing"], env={"X": SECRET}))
    assert "status " in said.message and engine.names == []
    said = await _failed(context, run(image="localhost/other:1"))
    assert said.message.startswith("DOCKER run: status 404: ") and engine.names == []


async def test_cancelled_the_container_is_killed_and_gone(run, engine, context):
    work = asyncio.create_task(run(args=_shell("trap '' TERM; /bin/busybox sleep 1000")))
    while not engine.names or not engine.ask("ps", "--format", "{{.Names}}").split():
        assert not work.done()
        await asyncio.sleep(0.05)
    assert engine.names[0].startswith(f"headrace-{context.execution_id}-")
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert engine.names == [] and context.text == ""


async def test_one_that_is_left_running_is_entered_listed_stopped_and_removed(run, context, engine):
    labels = {**ALONE, "Labels": {"team": "a"}}
    made = await run(name="kept", detach=True, args=["/bin/busybox", "sleep", "1000"], options=labels)
    listed = (await run("list", labels=["team=a"]))["containers"]
    assert [(one["id"], one["name"], one["image"], one["state"]) for one in listed] == [
        (made["id"], "kept", podman.IMAGE, "running")
    ]
    assert listed[0]["labels"] == {"team": "a", "headrace": context.execution_id}
    assert (await run("list", labels=["team=b"]))["containers"] == []
    told = await run("exec", container="kept", args=_shell("echo $X; echo e >&2"), env={"X": "1"})
    assert told == {"retcode": 0, "stdout": "1\n", "stderr": "e\n"}
    said = await _failed(context, run("exec", container="kept", args=_shell("exit 4"), env={"X": SECRET}))
    assert said.message == "DOCKER exec: the program ended with 4, without a word"
    assert "status " in (await _failed(context, run(name="kept", args=["x"]))).message
    assert engine.names == ["kept"]
    assert "status " in (await _failed(context, run("remove", container="kept"))).message
    await run("stop", container="kept", grace=0)
    await run("stop", container="kept", grace=0)
    assert (await run("list"))["containers"] == []
    assert [one["name"] for one in (await run("list", all=True))["containers"]] == ["kept"]
    await run("remove", container="kept")
    assert "status 404" in (await _failed(context, run("remove", container="kept"))).message
    assert "status 404" in (await _failed(context, run("exec", container="kept", args=["x"]))).message


async def test_a_program_reads_what_it_is_given(run, context, engine):
    text = "ü" * 200_000 + "\n"
    told = await run(args=_shell("/bin/busybox md5sum; echo end"), stdin=text)
    assert told["stdout"] == f"{hashlib.md5(text.encode()).hexdigest()}  -\nend\n" and engine.names == []
    assert (await run(args=_shell("/bin/busybox cat; echo end"), stdin=""))["stdout"] == "end\n"
    assert context.text == ""
    assert (await run(args=_shell("echo no"), stdin=text * 5))["stdout"] == "no\n"
    assert context.text == "WARNING the program ended before it had read all of its input" and engine.names == []


async def test_files_go_into_a_container_and_come_out(run, context, engine):
    stored_files.put(context, "in.txt", "hällo".encode())
    given = [{"src": "headrace:in.txt", "dst": "/new/deep/er.txt"}]
    kept = [{"src": "/tmp/out.txt", "dst": "headrace:got/out.txt"}]
    script = (
        "/bin/busybox cat /new/deep/er.txt; /bin/busybox stat -c %a-%u /new/deep/er.txt /tmp; echo out > /tmp/out.txt"
    )
    told = await run(args=_shell(script), user="7", copy_files=given, output_files=kept)
    assert told["stdout"] == "hällo755-0\n777-0\n" and context.files.read("got/out.txt") == b"out\n"
    other = [{"src": "/tmp", "dst": "headrace:x"}]
    said = await _failed(context, run(args=_shell("true"), output_files=other))
    assert said.message == "DOCKER run: there is no file '/tmp' to keep: it is something else"
    said = await _failed(context, run(args=_shell("true"), output_files=kept))
    assert said.message.startswith("DOCKER run: there is no file '/tmp/out.txt' to keep: status 404: ")
    said = await _failed(context, run(args=["x"], copy_files=[{"src": "headrace:no.txt", "dst": "/x"}]))
    assert "no.txt" in said.message and engine.names == [] and context.files.names() == ["got/out.txt", "in.txt"]


async def test_files_of_one_that_runs(run, context):
    stored_files.put(context, "in.txt", b"1")
    await run(name="open", detach=True, args=["/bin/busybox", "sleep", "1000"])
    given, kept = [{"src": "headrace:in.txt", "dst": "/in"}], [{"src": "/in", "dst": "headrace:out"}]
    told = await run("exec", container="open", args=_shell("echo 2 >> /in"), copy_files=given, output_files=kept)
    assert told["retcode"] == 0 and context.files.read("out") == b"12\n"
    assert await run("copy", container="open", copy_files=given, output_files=kept) == {}
    assert context.files.read("out") == b"1"
    await run("remove", container="open", force=True)
    assert "status 404" in (await _failed(context, run("copy", container="open", copy_files=given))).message


RECIPE = f"""FROM {podman.IMAGE}
ARG WORD
COPY a.txt b/c.txt /
RUN ["/bin/busybox", "sh", "-c", "echo building $WORD"]
CMD ["/bin/busybox", "cat", "/a.txt", "/c.txt"]
"""


async def test_an_image_is_built_of_files_and_its_log_told(run, context, engine):
    stored_files.put(context, "c.txt", b"copied\n")
    packed = archives.packed("tar", [("a.txt", b"archived\n"), ("b/c.txt", b"archived\n"), ("Dockerfile", b"no")])
    stored_files.put(context, "all.tgz", packed)
    copied = [{"src": "headrace:c.txt", "dst": "b/c.txt"}]
    built = await run(
        "build", image="localhost/own", files={"Dockerfile": RECIPE}, archive="headrace:all.tgz", copy_files=copied,
        build_args={"WORD": "seven"},
    )  # fmt: skip
    assert "INFO building seven\n" in context.text + "\n" and "building seven\n" in built["report"]
    assert (await run(image=built["id"].removeprefix("sha256:")))["stdout"] == "archived\ncopied\n"
    assert (await run(image="localhost/own:latest"))["stdout"] == "archived\ncopied\n"
    files = {"x/D": f"FROM {podman.IMAGE}\nCMD x\n"}
    again = await run("build", files=files, dockerfile="x/D", options={"nocache": True, "labels": {"a": "b"}})
    assert again["id"] != built["id"] and engine.names == []


async def test_an_image_that_cannot_be_built_is_a_failure_with_its_log(run, context, engine):
    broken = RECIPE.replace("echo building", "echo trying; exit 3 #")
    files = {"Dockerfile": broken, "a.txt": "", "b/c.txt": ""}
    said = await _failed(context, run("build", files=files, build_args={"WORD": SECRET}))
    assert said.message.startswith("DOCKER build: the image cannot be built: ")
    assert "trying\n" in json.loads(said.output)["report"] and "INFO trying" in context.text and engine.names == []
    said = await _failed(context, run("build", files={"a": "", "a/b": ""}))
    assert said.message == "DOCKER build: cannot put the file 'a/b' there: File exists"
    stored_files.put(context, "x.zip", b"no zip")
    said = await _failed(context, run("build", archive="headrace:x.zip"))
    assert said.message == "cannot unpack the file 'x.zip': it is damaged, encrypted, or no such archive"


async def test_nobody_waits_for_a_build_whose_task_is_cancelled(run, context, engine):
    recipe = f'FROM {podman.IMAGE}\nRUN ["/bin/busybox", "sh", "-c", "echo begun; /bin/busybox sleep 2"]\n'
    work = asyncio.create_task(run("build", files={"Dockerfile": recipe}, options={"nocache": True}))
    while "begun" not in context.text:
        assert not work.done()
        await asyncio.sleep(0.05)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work


async def test_an_image_is_pulled_with_a_login(run, context, engine):
    application = web.Application()
    application.router.add_get("/{path:.*}", podman.Registry().handler)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", engine.registry_port).start()
    image = f"127.0.0.1:{engine.registry_port}/team/box"
    try:
        said = await _failed(context, run("pull", image=image, username="app", password="not-the-password"))
        assert "not-the-password" not in said.message
        await run("pull", image=image, username="app", password=PASSWORD)
        said = await _failed(context, run("pull", image=f"{image}:other", username="app", password=PASSWORD))
        assert said.message.startswith("DOCKER pull: the image cannot be pulled: ")
    finally:
        await runner.cleanup()
    assert (await run(image=image))["stdout"] == "pulled\n"


async def test_tls_is_checked_and_a_certificate_shown(ran, context, engine, certs):
    async def pass_on(reader, writer):
        theirs, other = await asyncio.open_unix_connection(engine.socket)
        forth = asyncio.create_task(_pump(reader, other))
        await _pump(theirs, writer)
        writer.close()
        await forth
        other.close()

    async with await asyncio.start_server(
        pass_on, "127.0.0.1", 0, ssl=certs.server_context(wants_client=True)
    ) as listening:
        url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        pair = {"client_cert": certs.text("client.crt"), "client_key": certs.text("client.key")}
        own = {"image": podman.IMAGE, "options": ALONE, "args": ["/bin/busybox", "echo", "hi"]}
        assert (await ran(url, "run", **own, **pair, cacert=certs.text("ca.crt")))["stdout"] == "hi\n"
        own["args"] = ["/bin/busybox", "md5sum"]
        told = await ran(url, "run", **own, **pair, cacert=certs.text("ca.crt"), stdin="x" * 300_000)
        assert told["stdout"].startswith(hashlib.md5(b"x" * 300_000).hexdigest())
        assert "is not trusted" in (await _failed(context, ran(url, **pair))).message
        assert await _failed(context, ran(url, cacert=certs.text("ca.crt")))


async def _pump(reader, writer) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        writer.write_eof() if writer.can_write_eof() else None


async def test_a_socket_must_be_allowed_and_an_address_too(context, engine):
    url = f"unix://{engine.socket}"
    other = definition.Settings(local=local.Local(sockets=("/run/other.sock",)))
    said = await _failed(context, _run(context, other, url=url, command="list"))
    assert said.message == (
        f"DOCKER: this daemon does not let it connect to '{engine.socket}': the setting tasks.local says where it may"
    )
    closed = definition.Settings(egress=egress.Egress(deny_private=True))
    for name in ("127.0.0.1", "localhost"):
        said = await _failed(context, _run(context, closed, url=f"http://{name}:1", command="list"))
        assert "is not a public address" in said.message


async def test_nobody_is_there(ran, context, tmp_path):
    port = free_port()
    assert f"refused by 127.0.0.1:{port}" in (await _failed(context, ran(f"http://127.0.0.1:{port}"))).message
    said = await _failed(context, ran(f"unix://{tmp_path}/no.sock"))
    assert f"cannot connect to {tmp_path}/no.sock: " in said.message
    assert (
        "the name nowhere.invalid cannot be resolved" in (await _failed(context, ran("http://nowhere.invalid"))).message
    )

    async def says_nothing(reader, writer):
        await reader.read()

    async with host(says_nothing) as silent:
        said = await _failed(context, ran(f"http://127.0.0.1:{silent.port}", read_timeout=0.2))
        assert said.message.endswith("sent nothing for 0.2 s")
        await silent.left_alone()


class _Liar:
    """Answers what a path says, and remembers what was asked."""

    def __init__(self, **answers) -> None:
        self.asked: list[str] = []
        self.answers = {
            "_ping": web.Response(headers={"Api-Version": "1.41"}), "create": web.json_response({"Id": "c1"}),
            "start": web.Response(status=204), "wait": web.json_response({"StatusCode": 0}), **answers,
        }  # fmt: skip

    async def handler(self, request: web.Request) -> web.StreamResponse:
        what = request.path.rpartition("/")[2]
        self.asked.append(f"{request.method} {request.path}")
        found = self.answers.get(what, web.Response(status=204))
        return await found(request) if callable(found) else found


async def _for_ever(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write((b"\1\0\0\0" + (65536).to_bytes(4, "big") + bytes(65536)) * 16)


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"_ping": web.Response()}, "is not an engine of Docker or Podman"),
        ({"create": web.json_response([])}, "is not what an engine says"),
        ({"create": web.json_response({"Id": "../x"})}, "is not what an engine says"),
        ({"create": web.Response(text="x")}, "is not what an engine says"),
        ({"create": web.json_response({"message": f"no: {SECRET}"}, status=500)}, "status 500: no: ***"),
        ({"create": web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"})}, "status 302: "),
        ({"logs": _for_ever}, "the program wrote more than 1 MiB"),
        ({"logs": web.Response(body=b"garbage garbage")}, "is not what an engine says"),
        ({"logs": web.Response(body=b"\1\0\0\0\0\0\0\7short")}, "is not what an engine says"),
        (
            {"logs": web.Response(body=b""), "wait": web.json_response({"StatusCode": "x"})},
            "is not what an engine says",
        ),
    ],
    ids=range(10),
)
async def test_an_engine_that_lies_is_a_failure_and_nothing_is_left(ran, context, serve, monkeypatch, answers, words):
    monkeypatch.setattr(docker_engine, "OUTPUT_BYTES_MAX", 1 << 20)
    liar = _Liar(**answers)
    said = await _failed(context, ran(await serve(liar.handler), "run", image="box", env={"X": SECRET}))
    assert words in said.message
    if "_ping" not in answers:
        assert liar.asked[-1].startswith("DELETE /v1.41/containers/")


async def _one_line_for_ever(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x" * 65536)


@pytest.mark.parametrize(
    ("command", "answer", "words"),
    [
        ("build", _one_line_for_ever, "the answer is larger than 1 MiB"),
        ("build", web.Response(body=b"garbage"), "is not what an engine says"),
        ("build", web.Response(body=b"[]\n"), "is not what an engine says"),
        ("build", web.Response(body=b'{"stream":"Successfully built 123"}'), "is not what an engine says"),
        ("build", web.Response(body=b'{"aux":{"ID":"../x"}}'), "is not what an engine says"),
        ("build", web.Response(body=b'{"error":"no: hush-hush-variable"}'), "the image cannot be built: no: ***"),
        ("pull", _one_line_for_ever, "the answer is larger than 1 MiB"),
        ("copy", _one_line_for_ever, "the file '/x' is larger than 0 GiB"),
        ("copy", web.Response(body=b"garbage" * 1000), "what the engine sends as the file '/x' is no archive"),
        ("copy", web.Response(body=b""), "what the engine sends as the file '/x' is no archive"),
        ("copy", web.Response(body=bytes(10240)), "there is no file '/x' to keep: it is something else"),
        ("run", web.Response(), "is not what an engine says"),
    ],
    ids=range(12),
)
async def test_an_engine_that_lies_about_images_and_files(ran, context, serve, monkeypatch, command, answer, words):
    monkeypatch.setattr(docker_engine, "OUTPUT_BYTES_MAX", 1 << 20)
    monkeypatch.setattr(workplace, "FILE_BYTES_MAX", 1 << 20)
    own = {
        "build": {"files": {"Dockerfile": "FROM x"}, "build_args": {"X": SECRET}}, "pull": {"image": "box"},
        "copy": {"container": "c", "output_files": [{"src": "/x", "dst": "headrace:x"}]},
        "run": {"image": "box", "stdin": "x"},
    }[command]  # fmt: skip
    liar = _Liar(build=answer, archive=answer, attach=answer, **({"create": answer} if command == "pull" else {}))
    said = await _failed(context, ran(await serve(liar.handler), command, **own))
    assert words in said.message and context.files.names() == []


async def test_an_engine_that_removes_nothing_is_told(ran, context, serve):
    liar = _Liar(logs=web.Response(body=b""), c1=web.json_response({"message": "busy"}, status=500))
    assert (await ran(await serve(liar.handler), "run", image="box"))["retcode"] == 0
    assert context.text == "WARNING the container c1 may be left: status 500: busy"


def test_what_may_be_repeated(tasks):
    for more, repeatable in (
        ({"command": "list"}, True),
        ({"command": "pull", "image": "x"}, True),
        ({"command": "stop", "container": "x"}, True),
        ({"command": "build", "files": {"Dockerfile": "FROM x"}}, True),
        ({"command": "remove", "container": "x"}, False),
        ({"image": "x"}, False),
    ):
        assert tasks.prepare("PODMAN", json.dumps({"url": "http://x", **more}).encode()).idempotent is repeatable
    assert tasks.prepare("DOCKER", b'{"url":"http://x","image":"x"}').secret_inputs >= {"env", "build_args"}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"url": "ftp://x"}, "cannot use the input 'url': expected an address with http or https"),
        ({"url": "unix://x"}, "cannot use the input 'url': expected unix:// and the absolute path of a socket"),
        ({}, "needs the input 'image': the command run needs it"),
        ({"command": "exec", "container": "x"}, "needs the input 'args': the command exec needs it"),
        ({"command": "list", "image": "x"}, "cannot use the input 'image': the command list does not use it"),
        (
            {"command": "stop", "container": "../x"},
            "cannot use the input 'container': expected the name or id of a container",
        ),
        ({"image": "a b"}, "cannot use the input 'image': expected the name of an image"),
        ({"image": "x", "env": {"a=b": "c"}}, "cannot use the input 'env': expected names and values of variables"),
        ({"command": "pull", "image": "x", "username": "u"}, "needs the input 'password': a login has both"),
        (
            {"image": "x", "detach": True, "expected_retcode": 1},
            "cannot use the input 'expected_retcode': nobody waits for it with 'detach'",
        ),
        (
            {"image": "x", "detach": True, "stdin": ""},
            "cannot use the input 'stdin': nobody waits for it with 'detach'",
        ),
        (
            {"image": "x", "copy_files": [{"src": "x", "dst": "/x"}]},
            "cannot use the input 'copy_files': expected headrace:<path> as 'src'",
        ),
        (
            {"image": "x", "copy_files": [{"src": "headrace:x", "dst": "x"}]},
            "cannot use the input 'copy_files': expected an absolute path in the container as 'dst'",
        ),
        (
            {"image": "x", "output_files": [{"src": "/a/../../x", "dst": "headrace:x"}]},
            "cannot use the input 'output_files': expected an absolute path in the container as 'src'",
        ),
        (
            {"command": "copy", "container": "x"},
            "needs the input 'copy_files': what is to be copied, or output_files",
        ),
        (
            {"command": "build"},
            "needs the input 'files': what the image is made of, unless archive or copy_files bring it",
        ),
        (
            {"command": "build", "files": {"../x": ""}},
            "cannot use the input 'files': expected paths inside of the folder",
        ),
        ({"command": "build", "archive": "x.zip"}, "cannot use the input 'archive': expected headrace:<path>"),
        (
            {"command": "build", "archive": "headrace:x.tar"},
            "cannot use the input 'archive': expected a name that ends in .tar.gz, .tgz or .zip",
        ),
        (
            {"command": "build", "files": {"x": ""}, "dockerfile": "/x"},
            "cannot use the input 'dockerfile': expected a path inside of the folder",
        ),
        (
            {"command": "build", "files": {"x": ""}, "copy_files": [{"src": "headrace:x", "dst": "/x"}]},
            "cannot use the input 'copy_files': expected a path inside of the folder as 'dst'",
        ),
        ({"image": "x", "files": {"x": ""}}, "cannot use the input 'files': the command run does not use it"),
    ],
    ids=range(22),
)
def test_inputs_that_cannot_be_used(tasks, inputs, message):
    with pytest.raises(errors.InputRefused) as refused:
        tasks.prepare("DOCKER", json.dumps({"url": "http://x", **inputs}).encode())
    assert refused.value.message == f"DOCKER {message}"


def test_only_paths_of_sockets_can_be_allowed():
    with pytest.raises(ValueError, match="'docker.sock' is not the absolute path of a socket"):
        local.Local(sockets=("docker.sock",))


def test_the_tag_of_an_image():
    assert docker_images.tagged("box") == ("box", "latest")
    assert docker_images.tagged("host:5000/box") == ("host:5000/box", "latest")
    assert docker_images.tagged("host:5000/box:1") == ("host:5000/box", "1")
