"""Runs snippets that people keep in a setting, each as an execution of its own."""
import textwrap

HEADER = 'def handler(system, this, inputs):\n'


def handler(system, this, inputs):
    results = {}
    for name, snippet in system.setting('snippets').get('value').items():
        text = HEADER + textwrap.indent(snippet, '    ')
        run = this.script(text, inputs=inputs.get('inputs', {}), name=f'snippet {name}', wait=system.return_when.ALL_ENDED)
        results[name] = run.get('output_value') if run.get('status') == 'ENDED_SUCCESS' else run.get('message')
        assert run.get('type') == 'SCRIPT', run.get('type')
    return results
