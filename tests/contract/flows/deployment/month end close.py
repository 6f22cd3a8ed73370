"""Closes a month: each step happens once, whatever happens in between."""
import datetime

import flow_api


def handler(system: flow_api.System, this: flow_api.Execution, inputs: dict):
    first = datetime.date.fromisoformat(inputs['month'] + '-01')
    last = (first.replace(day=28) + datetime.timedelta(days=4)).replace(day=1) - datetime.timedelta(days=1)
    ledger = system.setting('ledger')
    with this.lock('the books', timeout=60):
        entries = ledger.get('value')
        number = this.step('number', lambda: f'{first:%Y%m}-{len(entries)}')
        total = this.step('sum', sum, [entry['cents'] for entry in entries if entry['day'].startswith(inputs['month'])])
        reference = this.uuid()
        closing = {'number': number, 'reference': reference, 'closed_at': this.now().isoformat(), 'last_day': last.isoformat(), 'cents': total}
        system.file(f'closings/{inputs["month"]}.txt', content='\n'.join(f'{k}={v}' for k, v in closing.items()))
    draw = this.random()
    this.set_output('closing', closing)
    this.set_output('audited', draw < inputs.get('audit_share', 0.1))
    return closing and this.success(f'{inputs["month"]} is closed with {total / 100:.2f}')
