"""Every kind of call that a handler can make is replayed offline as it was answered, and each is made here."""

import textwrap
from types import SimpleNamespace

import pytest

from headrace.daemon import typings
from headrace.engine.records import shelf
from headrace.engine.running import child_calls, own_calls, record_calls, shared_calls
from tests.support.replays import checked

#: What the examples of the reference page do not do.
FLOWS = {
    "records": """
        def handler(system, this):
            for one, fields in ((system.setting('a', value=[1]), {'value': 2}), (system.file('a.txt', content='x'), {}),
                        (system.connection('c', connection_type='REST', value={}), {}),
                        (system.webhook('w', flow_name='hello', secret='secret.env(X)'), {}),
                        (system.schedule('s', flow_name='hello', cron='@daily'), {'cron': '@hourly'}),
                        (system.vault_config('v', url='http://127.0.0.1:1'), {})):
                this.log(one.get('name'), one.exists())
                one.save(**fields)
                try:
                    copy = one.clone(name='copy of it')
                    this.log(copy.get('name'))
                    copy.delete()
                except Exception as error:
                    this.log(str(error))
                one.delete()
                this.log(one.exists())
            for list_ in (system.settings, system.files, system.connections, system.webhooks, system.schedules,
                          system.vault_configs, system.flows, system.executions, system.locks, system.users,
                          system.messages):
                this.log(len(list_()))
        """,
    "others": """
        def handler(system, this):
            user = system.get_own_user()
            this.log(user.load('name'), user.exists(), system.get_own_client().get('name'))
            message = system.message(subject='s', message='m')
            this.log(message.exists(), message.get('subject'))
            message.delete()
            this.log(system.message(id=message.id).exists() if False else 'gone')
            child = this.flow('hello', run=False)
            this.log(child.exists(), system.execution('hello', by='name').get('name'), child.get('status'))
            child.run_async().pause()
            child.resume().wait(system.return_when.ALL_ENDED)
            again = child.clone()
            this.log(again.get('status'))
            again.delete()
            this.log(again.exists())
            with this.lock('mine'):
                this.log(system.lock('mine').get('execution_id') == this.id, system.lock('mine').exists())
                system.lock('mine').delete()
            try:
                system.user('nobody').save(name='x')
            except Exception as error:
                this.log(type(error).__name__)
            this.log(this.get('message'), this.load('status'))
            this.log(this.connect(connection_type='REST', url='http://127.0.0.1:1', run=False).get('type'))
        """,
    "authoring": """
        TEXT = 'def handler(system, this):\\n    return 1\\n'
        def handler(system, this):
            made = system.flow('made by a flow').save(script=TEXT)
            this.log(made.exists(), made.get('script') == TEXT)
            copy = made.clone(name='made by a clone')
            this.log(copy.get('name'))
            copy.save(name='called otherwise')
            this.flow('made by a flow')
            for name in ('made by a flow', 'called otherwise'):
                system.flow(name).delete()
        """,
    "vaults": """
        def handler(system, this):
            vault = system.vault_config('nowhere')
            for ask in (lambda: vault.read_secret('path'), lambda: vault.write_secret('path', {'a': 1})):
                try:
                    ask()
                except Exception as error:
                    this.log(type(error).__name__)
        """,
}  # fmt: skip


@pytest.fixture(scope="module")
def daemon(workshop):
    workshop.write("hello.py", "def handler(system, this, inputs):\n    return {'greeting': inputs.get('who')}\n")
    for number, (_, code) in enumerate(typings.examples()):
        body = textwrap.indent(code, "    ")
        workshop.write(f"example {number}.py", f"import flow_api\n\n\ndef handler(system, this, inputs):\n{body}\n")
    for name, text in FLOWS.items():
        workshop.write(f"{name}.py", text)
    workshop.daemon.client.sync()
    return workshop.daemon


def served():
    ledger = SimpleNamespace(contents=None)
    tables = [
        child_calls.ChildCalls(ledger, *[None] * 5).table(),
        own_calls.OwnCalls(ledger, None, None).table(),
        shared_calls.SharedCalls(ledger, *[None] * 3).table(),
        record_calls.RecordCalls(ledger, *[None] * 7).table(),
    ]
    return {kind for table in tables for kind in table}


def test_every_kind_of_call_is_replayed_as_it_was_answered(daemon):
    names = [*(f"example {number}" for number in range(len(typings.examples()))), *FLOWS]
    ended = {name: daemon.run(name) for name in names}
    assert {name: one["message"] for name, one in ended.items() if one["status"] != "ENDED_SUCCESS"} == {}
    kinds = {line.get("kind", "") for line in daemon.lines()} | {"webhook_response"}
    never = {kind for kind in served() - kinds if not kind.endswith((".save", ".clone"))} - {"user.delete"}
    assert never == set()
    found = checked(daemon.source, "--state", daemon.state, "--limit", 1000)
    all_ = [one for flow in found["flows"] if flow["flow"] != "made by a flow" for one in flow["executions"]]
    assert [one for one in all_ if one["result"] == "differs" or one["notes"]] == []
    skipped = [one["text"] for one in all_ if one["result"] == "skipped"]
    assert 1 <= len(skipped) <= 2, "those that deleted a child"
    assert [text for text in skipped if "whose record had been deleted" not in text] == []
    assert found["same"] >= len(names)


def test_the_newest_execution_is_found_without_a_daemon(daemon):
    ran = daemon.run("hello")
    assert shelf.Shelf(daemon.state / "records").newest() == ran["id"]
