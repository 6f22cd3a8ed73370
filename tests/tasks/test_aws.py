"""AWS and S3, with moto's services, and answers no service gives."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import uuid

import pytest
from aiohttp import web

from headrace.engine import errors
from headrace.tasks import definition, egress, registry
from headrace.tasks import http as http_exchange
from tests.support import services

SECRET = "hush-hush-secret-access-key"
KEY = {"aws_access_key_id": "AKIATEST", "aws_secret_access_key": SECRET}


@pytest.fixture(scope="module")
def server():
    with services.moto() as address:
        yield address


@pytest.fixture
def aws(call, server):
    async def run(client, service=None, **inputs):
        given = {**KEY, "endpoint_url": server, "client": client, "service": service, "retry_backoff": False, **inputs}
        return (await call("AWS", **given))["result"]

    return run


@pytest.fixture
async def bucket(aws):
    name = f"b{uuid.uuid4().hex}"
    await aws("s3", "create_bucket", parameters={"Bucket": name})
    return name


@pytest.fixture
def s3(call, server, bucket):
    async def run(command, path=None, **inputs):
        given = {**KEY, "endpoint_url": server, "bucket": bucket, "retry_backoff": False, **inputs}
        return await call("S3", command=command, path=path, **given)

    return run


async def _failure(coroutine) -> str:
    with pytest.raises(errors.TaskFailed) as failed:
        await coroutine
    assert SECRET not in failed.value.message + failed.value.output.decode()
    return failed.value.message


async def test_any_operation_of_any_service_is_called(aws):
    assert (await aws("sts", "get_caller_identity"))["Account"] == "123456789012"
    started = await aws("ec2", "run_instances", parameters={"ImageId": "ami-12c6146b", "MinCount": 1, "MaxCount": 1})
    (instance,) = started["Instances"]
    assert instance["LaunchTime"].endswith("Z")
    ids = {"InstanceIds": [instance["InstanceId"]]}
    await aws("ec2", waiter="instance_running", parameters=ids)
    said = await _failure(
        aws("ec2", waiter="instance_terminated", parameters={**ids, "WaiterConfig": {"MaxAttempts": 1}})
    )
    assert said.endswith("it is not so after 1 attempts, 15 s apart")
    await aws("ec2", "terminate_instances", parameters=ids)
    queue = await aws("sqs", "create_queue", parameters={"QueueName": "q"}, region="eu-west-1")
    await aws("sqs", "send_message", parameters={"QueueUrl": queue["QueueUrl"], "MessageBody": "ü"}, region="eu-west-1")
    taken = await aws("sqs", "receive_message", parameters={"QueueUrl": queue["QueueUrl"]}, region="eu-west-1")
    assert taken["Messages"][0]["Body"] == "ü"


async def test_pages_are_put_together(aws, bucket):
    for number in range(5):
        await aws("s3", "put_object", parameters={"Bucket": bucket, "Key": f"k{number}", "Body": "x"})
    parameters = {"Bucket": bucket, "PaginationConfig": {"PageSize": 2}}
    found = await aws("s3", "list_objects_v2", parameters=parameters, paginate=True)
    assert [one["Key"] for one in found["Contents"]] == [f"k{number}" for number in range(5)]
    assert "has no pages" in await _failure(aws("s3", "get_object", parameters={}, paginate=True))


async def test_bytes_are_base64_in_both_directions(aws, bucket):
    body = {"base64": base64.b64encode(b"\xff\0").decode()}
    await aws("s3", "put_object", parameters={"Bucket": bucket, "Key": "bytes", "Body": body})
    assert (await aws("s3", "get_object", parameters={"Bucket": bucket, "Key": "bytes"}))["Body"] == body


async def test_refusals_are_told_in_the_services_words(aws, bucket):
    assert "NoSuchKey: The specified key does not exist. (status 404)" in await _failure(
        aws("s3", "get_object", parameters={"Bucket": bucket, "Key": "nothing"})
    )
    assert "ec2 has no operation launch" in await _failure(aws("ec2", "launch"))
    assert "ec2 has no waiter x" in await _failure(aws("ec2", waiter="x"))
    assert "Unknown service: 'nonsense'" in await _failure(aws("nonsense", "x"))
    assert "Missing required parameter" in await _failure(aws("s3", "get_object"))


async def test_wrong_credentials_are_refused_and_not_shown(aws, server):
    def reset(count: str) -> None:
        connection = http.client.HTTPConnection(server.removeprefix("http://"))
        connection.request("POST", "/moto-api/reset-auth", count)
        assert connection.getresponse().status == 200
        connection.close()

    await aws("iam", "create_user", parameters={"UserName": "u"})
    key = (await aws("iam", "create_access_key", parameters={"UserName": "u"}))["AccessKey"]
    everything = {"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}, "Version": "2012-10-17"}
    policy = {"UserName": "u", "PolicyName": "p", "PolicyDocument": json.dumps(everything)}
    await aws("iam", "put_user_policy", parameters=policy)
    reset("0")
    try:
        good = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
        assert "Arn" in await aws("sts", "get_caller_identity", **good)
        assert "SignatureDoesNotMatch" in await _failure(
            aws("sts", "get_caller_identity", **{**good, "aws_secret_access_key": SECRET})
        )
        assert "InvalidClientTokenId" in await _failure(aws("sts", "get_caller_identity"))
    finally:
        reset("inf")


async def test_objects_are_written_read_told_of_and_deleted(s3, context):
    put = await s3("put", "a/ü b+c", text="hello ü", content_type="text/plain", metadata={"who": "me"})
    assert put["size"] == 8
    got = await s3("get", "a/ü b+c")
    assert got["text"] == "hello ü" and got["metadata"] == {"who": "me"} and got["etag"] == put["etag"]
    await s3("put", "a/bytes", content="/wA=")
    assert (await s3("get", "a/bytes"))["content"] == "/wA="
    about = await s3("head", "a/bytes")
    assert about["size"] == 2 and about["text"] is None and about["last_modified"]
    listed = await s3("list", prefix="a/")
    assert [one["path"] for one in listed["objects"]] == ["a/bytes", "a/ü b+c"]
    assert (await s3("list", delimiter="/"))["folders"] == ["a/"]
    assert "more than 1: give a prefix" in await _failure(s3("list", max_objects=1))
    await s3("delete", "a/bytes")
    assert "NoSuchKey" in await _failure(s3("get", "a/bytes"))
    assert "NoSuchBucket" in await _failure(s3("get", "x", bucket="not-there"))


async def test_files_of_the_store_go_in_and_out(s3, context):
    writer = context.files.write("in.bin")
    writer.write(bytes(range(256)) * 5000)
    writer.commit()
    await s3("put", "big", src="headrace:in.bin")
    output = await s3("get", "big", dst="headrace:out/x.bin")
    assert context.files.read("out/x.bin") == context.files.read("in.bin")
    assert output["size"] == 1_280_000 and output["text"] is None
    assert "404" in await _failure(s3("get", "nothing", dst="headrace:never"))
    assert "never" not in context.files.names()


async def test_a_service_that_is_not_there_or_forbidden(call, tmp_path, context, pacing):
    port = services.free_port()
    given = {**KEY, "client": "sts", "service": "get_caller_identity", "endpoint_url": f"http://127.0.0.1:{port}"}
    retry = {"initial": 1, "deadline": 2}
    assert f"connection refused by 127.0.0.1:{port} (tried 2 times" in await _failure(
        call("AWS", **given, retry_backoff=retry)
    )
    assert pacing.pauses == [1.0]
    tasks = registry.installed(definition.Settings(egress=egress.Egress(deny_private=True)))
    with pytest.raises(errors.TaskFailed, match="127.0.0.1 is not a public address"):
        await tasks.prepare("AWS", json.dumps(given).encode()).run(context)
    await tasks.aclose()


async def test_the_daemons_own_identity_is_never_used(aws, monkeypatch, tmp_path, server):
    (tmp_path / "config").write_text("[default]\nendpoint_url = http://127.0.0.1:1\nregion = xx-nowhere-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert (await aws("sts", "get_caller_identity"))["Account"]


async def test_cancelled_the_request_ends(call, serve):
    came, gone = asyncio.Event(), asyncio.Event()

    async def never(request):
        came.set()
        try:
            await asyncio.sleep(60)
        finally:
            gone.set()

    work = asyncio.create_task(call("S3", **KEY, endpoint_url=await serve(never), bucket="bbb", path="x"))
    await came.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    await gone.wait()


async def test_a_service_that_answers_what_it_likes(call, serve, monkeypatch):
    async def endless(request):
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"<x>" * 100_000)

    async def garbage(request):
        return web.Response(body=b"\xff\xfe<", status=200)

    async def busy(request):
        return web.Response(status=503)

    monkeypatch.setattr(http_exchange, "BODY_BYTES_MAX", 1024 * 1024)
    given = {**KEY, "client": "sts", "service": "get_caller_identity", "retry_backoff": False}
    assert "larger than 1 MiB" in await _failure(call("AWS", **given, endpoint_url=await serve(endless)))
    assert "Unable to parse response" in await _failure(call("AWS", **given, endpoint_url=await serve(garbage)))
    assert "(status 503)" in await _failure(call("AWS", **given, endpoint_url=await serve(busy)))


async def test_a_certificate_is_checked(call, serve, certs):
    async def handler(request):
        return web.Response(text="hello")

    given = {**KEY, "bucket": "bbb", "path": "x", "retry_backoff": False}
    given["endpoint_url"] = await serve(handler, tls=certs.server_context())
    assert "is not trusted" in await _failure(call("S3", **given))
    assert (await call("S3", **given, cacert=certs.text("ca.crt")))["text"] == "hello"
    assert (await call("S3", **given, verify_ssl=False))["text"] == "hello"


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        (
            "AWS",
            {"aws_secret_access_key": None},
            "needs the input 'aws_secret_access_key': the access key; the daemon's own is never used",
        ),
        ("AWS", {}, "needs the input 'service': the operation (or 'waiter')"),
        (
            "AWS",
            {"service": "a", "waiter": "b"},
            "cannot use the input 'waiter': there is an operation already in 'service'; give one of them",
        ),
        ("AWS", {"service": "__class__"}, "cannot use the input 'service': expected a name such as boto3 has it"),
        (
            "AWS",
            {"service": "a", "endpoint_url": "ftp://x"},
            "cannot use the input 'endpoint_url': expected an address with http or https",
        ),
        (
            "AWS",
            {"service": "a", "parameters": {"x": {"base64": "?"}}},
            "cannot use the input 'parameters': expected base64 in {\"base64\": …}",
        ),
        ("S3", {}, "needs the input 'path': the object's name in the bucket"),
        (
            "S3",
            {"command": "put", "path": "x"},
            "needs the input 'src': the content: headrace:<path> (or 'text' or 'content')",
        ),
        (
            "S3",
            {"command": "put", "path": "x", "text": "a", "content": "b"},
            "cannot use the input 'content': there is a content already in 'text'; give one of them",
        ),
        ("S3", {"path": "x", "dst": "/etc/x"}, "cannot use the input 'dst': expected headrace:<path>"),
    ],
    ids=range(10),
)
def test_inputs_that_cannot_be_used(tasks, name, inputs, message):
    own = {"client": "ec2"} if name == "AWS" else {"bucket": "bbb"}
    with pytest.raises(errors.InputRefused) as refused:
        tasks.prepare(name, json.dumps({**KEY, **own, **inputs}).encode())
    assert refused.value.message == f"{name} {message}"
