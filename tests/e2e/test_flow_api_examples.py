"""Every example of the reference page runs, as a handler's body, in a daemon of its own."""

import textwrap

import pytest

from headrace.daemon import typings


@pytest.fixture(scope="module")
def daemon(workshop):
    workshop.write(
        "hello.py", "def handler(system, this, inputs):\n    return {'greeting': f\"Hello {inputs.get('who')}\"}\n"
    )
    for number, (name, code) in enumerate(typings.examples()):
        body = textwrap.indent(code, "    ")
        workshop.write(
            f"example {number}.py", f"# {name}\nimport flow_api\n\n\ndef handler(system, this, inputs):\n{body}\n"
        )
    workshop.daemon.client.sync()
    return workshop.daemon


@pytest.mark.parametrize(
    ("number", "name"), list(enumerate(name for name, _ in typings.examples())), ids=[n for n, _ in typings.examples()]
)
def test_the_example_runs(daemon, number, name):  # the name is for whoever reads the report
    ended = daemon.run(f"example {number}")
    assert ended["status"] == "ENDED_SUCCESS", ended["message"]
