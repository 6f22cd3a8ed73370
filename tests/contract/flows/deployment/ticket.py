"""
A state machine without a database: each ticket is a setting, each call of this flow is an event.
"""
TRANSITIONS = {
    ('new', 'assign'): 'assigned',
    ('assigned', 'assign'): 'assigned',
    ('assigned', 'resolve'): 'resolved',
    ('resolved', 'reopen'): 'assigned',
    ('resolved', 'close'): 'closed',
}


def handler(system, this, inputs):
    event, number = inputs['event'], inputs['ticket']
    ticket = system.setting(f'tickets/{number}')
    if event == 'create':
        if ticket.exists():
            return this.error(f'ticket {number} exists')
        ticket.save(value={'state': 'new', 'history': [], **inputs.get('fields', {})}, description=inputs.get('text', ''))
        this.set_output('state', 'new')
        return this.success(f'ticket {number} is new')
    with this.lock(f'ticket {number}', timeout=30):
        state = ticket.get('value')['state']
        after = TRANSITIONS.get((state, event))
        if after is None:
            allowed = sorted(e for s, e in TRANSITIONS if s == state)
            return this.error(f'{event} is not possible while {state}; try {" or ".join(allowed) or "nothing"}')
        value = ticket.get('value')
        value['state'] = after
        value['history'].append([event, state, after])
        value.update(inputs.get('fields', {}))
        ticket.save()
    if after == 'closed':
        ticket.clone(name=f'archive/{number}')
        ticket.delete()
    this.set_output('state', after)
    return this.success(f'{state} → {after}')
