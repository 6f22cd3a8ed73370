"""Reads a status page with requests and the standard library's HTML parser; keeps a history of changes."""
import html.parser

import requests


class Components(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.rows, self.cell = [], False

    def handle_starttag(self, tag, attrs):
        if tag == 'tr':
            self.rows.append([])
        self.cell = tag == 'td'

    def handle_data(self, data):
        if self.cell:
            self.rows[-1].append(data)

    def handle_endtag(self, tag):
        self.cell = False


def handler(system, this, inputs):
    answer = requests.get(inputs['url'], timeout=(3, 10), headers={'accept': 'text/html'})
    answer.raise_for_status()
    parser = Components()
    parser.feed(answer.text)
    state = {row[0]: row[1] for row in parser.rows if len(row) == 2}
    history = system.setting('status page history', init={'value': []})
    if not history.get('value') or history.get('value')[-1]['state'] != state:
        history.list_append({'at': this.now().isoformat(), 'state': state})
    this.set_output(state=state, entries=len(history.get('value')))
    bad = [name for name, text in state.items() if text != 'operational']
    return this.success('degraded: ' + ', '.join(bad) if bad else 'all operational')
