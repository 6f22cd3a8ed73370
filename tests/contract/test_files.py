"""Files: text, bytes and base64, old forms of writing them, listings, tasks that name them, and the repository's."""

from __future__ import annotations

import base64

import pytest

GREETING = "Grüß Gott 👋\r\nzweite Zeile\x00"


@pytest.mark.contract("3.file.text")
def test_text_comes_back_as_it_was(value):
    assert value("""
file = system.file('greeting.txt')
same = file.save_text_content(inputs['text']) is file
return [same, file.get_text_content(), system.file('greeting.txt').get_text_content()]
""", text=GREETING) == [True, GREETING, GREETING]  # fmt: skip


@pytest.mark.contract("3.file.text")
def test_what_is_no_text_is_refused_as_text(refused):
    refused("return system.file('b').save_bytes_content(b'\\xff').get_text_content()", "InvalidInputError")


@pytest.mark.contract("3.file.text", "3.record.missing")
@pytest.mark.parametrize(
    "read",
    ["get_text_content()", "get_bytes_content()", "get_base64_content()", "content_size_bytes()", "get('content')"],
)
def test_a_file_that_is_not_there_is_told(refused, read):
    assert "no such file.txt" in refused(f"return system.file('no such file.txt').{read}", "ResourceNotFoundError")


@pytest.mark.contract("3.file.bytes", "3.file.size", "3.file.base64")
@pytest.mark.parametrize("content", [b"", b"\x00\xff" * 5, bytes(range(256))])
def test_bytes_come_back_as_they_were_in_every_form(value, content):
    text = base64.b64encode(content).decode()
    assert (
        value(
            """
import base64
content = base64.b64decode(inputs['text'])
first = system.file('first.bin').save_bytes_content(content)
second = system.file('second.bin').save_base64_content(inputs['text'])
return [[file.get_bytes_content() == content, file.get_base64_content(), file.content_size_bytes(), file.get('size')]
        for file in (first, second)]
""",
            text=text,
        )
        == [[True, text, len(content), len(content)]] * 2
    )


@pytest.mark.contract("3.file.base64")
def test_what_is_not_base64_is_refused(refused):
    refused("system.file('x').save_base64_content('not base64!')", "InvalidInputError")


@pytest.mark.contract("3.file.size")
def test_a_size_is_that_of_now(value):
    assert value("""
file = system.file('grows.txt', content='1')
sizes = [file.content_size_bytes()]
system.file('grows.txt').save_text_content('ä' * 10)
return sizes + [file.content_size_bytes()]
""") == [1, 20]


@pytest.mark.contract("3.file.content", "3.file.save-text", "3.file.convert-binary")
def test_the_old_forms_write_what_they_wrote(value):
    encoded = base64.b64encode(b"\x00\x01from base64").decode()
    assert value(
        """
name = 'old forms.txt'
seen = []
system.file(name).save(content='as text')
seen.append(system.file(name).get('content'))
system.file(name).save(content='as it is', convert_binary=True)
seen.append(system.file(name).get('content'))
system.file(name).save(content=b'bytes')
seen.append(system.file(name).get('content'))
system.file(name).save(content=inputs['encoded'], convert_binary=False)
seen.append(system.file(name).get_bytes_content() == b'\\x00\\x01from base64')
system.file(name).save(text='as text again')
seen.append(system.file(name).get('content', 'name'))
return seen
""",
        encoded=encoded,
    ) == ["as text", "as it is", "bytes", True, ["as text again", "old forms.txt"]]


@pytest.mark.contract("3.file.content")
def test_content_that_is_no_text_is_got_as_base64(value):
    assert value("return system.file('b.bin', content=b'\\xff\\x00').get('content')") == "/wA="


@pytest.mark.contract("3.file.path")
def test_a_path_is_a_name(value):
    assert value("""
system.file(path='folder/by path.txt', content='one')
system.file('folder/by path.txt', content='two')
found = system.file(path='folder/by path.txt')
return [found.get('name'), found.get_text_content(), system.file(path='folder/none.txt').exists()]
""") == ["folder/by path.txt", "two", False]


@pytest.mark.contract("3.file.path")
@pytest.mark.parametrize("path", ["../escape.txt", "/etc/passwd", "a/../../b"])
def test_a_path_stays_below_the_files(refused, path):
    refused("system.file(path=inputs['path'], content='x')", "InvalidInputError", path=path)


@pytest.mark.contract("3.file.dir", "3.file.glob")
def test_files_are_listed_by_folder_and_by_pattern(value):
    assert value("""
for path in ('shelf/a.txt', 'shelf/b.csv', 'shelf/deep/c.txt', 'shelfish/d.txt'):
    system.file(path, content=path)
def names(**how):
    return [file.get('name') for file in system.files(**how)]
return [names(dir='shelf'), names(dir='shelf/'), names(dir='shelf/deep'), names(glob='shelf/*.csv'),
        names(dir='shelf', glob='*.txt'), names(dir='nowhere'),
        names(dir='shelf', filter={'field': 'name', 'op': 'like', 'value': '%b.%'})]
""") == [
        ["shelf/a.txt", "shelf/b.csv", "shelf/deep/c.txt"],
        ["shelf/a.txt", "shelf/b.csv", "shelf/deep/c.txt"],
        ["shelf/deep/c.txt"],
        ["shelf/b.csv"],
        ["shelf/a.txt", "shelf/deep/c.txt"],
        [],
        ["shelf/b.csv"],
    ]


@pytest.mark.contract("3.file.task", "3.file.task-alias")
@pytest.mark.parametrize("prefix", ["headrace:", "cloudomation:"])
def test_a_task_names_files_to_send_and_to_write(value, loopback, prefix):
    assert value(
        """
system.file('to send.txt', content='sent from a file')
sent = this.task('REST', url=inputs['url'] + '/echo', method='post', data=inputs['prefix'] + 'to send.txt')
this.task('REST', url=inputs['url'] + '/file', dst=inputs['prefix'] + 'fetched/it.txt')
return [sent.get('output_value')['json']['body'], system.file('fetched/it.txt').get_text_content(),
        system.file('fetched/it.txt').content_size_bytes()]
""",
        url=loopback.url,
        prefix=prefix,
    ) == ["sent from a file", "the content of a file", 21]


@pytest.mark.contract("3.declared.files")
def test_the_repository_s_files_are_files(workshop, value):
    workshop.write("files/templates/mail.txt", "Dear {{name}}")
    workshop.daemon.client.sync()
    assert value("""
file = system.file('templates/mail.txt')
return [file.get_text_content(), file.content_size_bytes(), file.get('created_by'),
        [f.get('name') for f in system.files(dir='templates')]]
""") == ["Dear {{name}}", 13, "repository", ["templates/mail.txt"]]


@pytest.mark.contract("3.declared.files", "3.declared.overlay", "3.declared.repository-wins")
def test_a_declared_file_is_overlaid_until_the_repository_changes_it(workshop, value):
    read = "return system.file('overlaid.txt').get_text_content()"
    workshop.write("files/overlaid.txt", "declared")
    workshop.daemon.client.sync()
    value("system.file('overlaid.txt').save_text_content('saved')")
    workshop.write("files/another.txt", "changed")
    workshop.daemon.client.sync()
    assert value(read) == "saved"
    workshop.write("files/overlaid.txt", "declared anew")
    workshop.daemon.client.sync()
    assert value(read) == "declared anew"


@pytest.mark.contract("3.file.task")
def test_a_task_reads_the_repository_s_files(workshop, value, loopback):
    workshop.write("files/declared body.txt", "from the repository")
    workshop.daemon.client.sync()
    body = "task = this.task('REST', url=inputs['url'], method='post', data='headrace:declared body.txt')\n"
    body += "return task.get('output_value')['json']['body']"
    assert value(body, url=f"{loopback.url}/echo") == "from the repository"


@pytest.mark.contract("3.file.bytes")
def test_people_read_and_write_files_as_they_are(workshop, value):
    status, _, _ = workshop.http("PUT", "/api/v1/files/from%20people.bin", b"\x00raw\xff")
    assert status < 300
    assert (
        value("return system.file('from people.bin').get_base64_content()") == base64.b64encode(b"\x00raw\xff").decode()
    )
    value("system.file('folder/for people.txt', content='read me')")
    assert workshop.http("GET", "/api/v1/files/folder/for%20people.txt")[:2] == (200, "read me")
