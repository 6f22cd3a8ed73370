"""Self-service: people order a machine, rules are checked, it is built and they are told where it is."""
import re

import flow_api

SIZES = {'small': (1, 2), 'medium': (2, 8), 'large': (8, 32)}


def problems(answer, quota):
    if not re.fullmatch(r'[a-z][a-z0-9-]{2,30}', answer['name']):
        yield 'the name must be lower case letters, digits and dashes'
    if answer['size'] not in SIZES:
        yield f'there is no size {answer["size"]}'
    elif SIZES[answer['size']][0] * answer['count'] > quota:
        yield f'{answer["count"]} × {answer["size"]} is over the quota of {quota} processors'
    if answer['count'] != int(answer['count']) or answer['count'] < 1:
        yield 'the count must be 1, 2, 3, …'


def handler(system: flow_api.System, this: flow_api.Execution, inputs: dict):
    quota = system.setting('machine quota').get('value')['processors']
    errors = []
    answer = {}
    for attempt in range(5):
        body = {
            'type': 'object',
            'properties': {
                'errors': {'element': 'markdown', 'order': 1, 'description': '\n'.join(f'* {e}' for e in errors) or 'Welcome!'},
                'name': {'element': 'string', 'type': 'string', 'label': 'Name', 'order': 2, 'default': answer.get('name')},
                'size': {'element': 'dropdown', 'type': 'string', 'label': 'Size', 'order': 3, 'enum': list(SIZES), 'default': 'small'},
                'count': {'element': 'number', 'type': 'number', 'label': 'How many', 'order': 4, 'default': 1},
                'until': {'element': 'date', 'type': 'string', 'format': 'date', 'label': 'Needed until', 'order': 5},
                'order it': {'element': 'submit', 'type': 'boolean', 'label': 'Order', 'order': 6},
            },
            'required': ['name', 'order it'],
        }
        message = this.message('Order a machine', body=body, wait=False)
        this.set_output(attempt=attempt + 1, errors=errors)
        answer = message.wait(timeout=inputs.get('timeout_seconds', 86400)).get('response')
        errors = list(problems(answer, quota))
        if not errors:
            break
        this.log('refused', *errors)
    else:
        return this.error('five attempts are enough')
    machines = [
        this.flow(
            'provisioning/provision a machine', machine=f'{answer["name"]}-{number + 1}', size=answer['size'],
            base_url=inputs['base_url'], poll_seconds=inputs.get('poll_seconds', 10), wait=False,
        )
        for number in range(int(answer['count']))
    ]
    this.wait_for(*machines, return_when=system.return_when.ALL_ENDED)
    ready = [m.get('output_value')['machine'] for m in machines if m.get('status') == 'ENDED_SUCCESS']
    this.set_output('machines', ready)
    system.message(subject='Your machines', message_type='SUCCESS', message='\n'.join(f'* {m["id"]}' for m in ready))
    return this.success(f'{len(ready)} of {len(machines)} machines are ready')
