"""
Run a flow again and again until somebody presses "stop".

The interval, the flow and its inputs are read from a setting before every
iteration, so they can be changed while the loop is running:

    interval_seconds: 3600
    flow: operations/heartbeat
    inputs: {}
    stop_on_error: true

inputs:
    setting: name of the setting (default: recurring loop)
"""

import flow_api


def handler(system, this):
    inputs = this.get('input_value')
    setting = system.setting(inputs.get('setting') or 'recurring loop')
    config = setting.get('value')

    stop_form = system.message(
        subject='Recurring: %s' % config['flow'],
        message_type='POPUP',
        body={
            'type': 'object',
            'properties': {
                'info': {
                    'element': 'markdown',
                    'description': '`%s` runs every %s seconds' % (config['flow'], config['interval_seconds']),
                    'order': 1,
                },
                'reason': {
                    'element': 'string',
                    'type': 'string',
                    'label': 'Why do you stop it?',
                    'example': 'maintenance',
                    'order': 2,
                },
                'stop': {
                    'element': 'submit',
                    'type': 'boolean',
                    'label': 'Stop the loop',
                    'order': 3,
                },
            },
        },
    )
    this.set_output(message_id=stop_form.get('id'))

    iterations = 0
    failed = 0
    while True:
        config = setting.load('value')
        iterations += 1
        child = this.flow(
            config['flow'],
            input_value=config.get('inputs') or {},
            iteration=iterations,
            name='%s #%d' % (config['flow'], iterations),
            wait=system.return_when.ALL_ENDED,
        )
        if child.get('status') != 'ENDED_SUCCESS':
            failed += 1
            this.logln(iteration=iterations, failed=child.get('message'))
            if config.get('stop_on_error', True):
                return this.error('iteration %d failed: %s' % (iterations, child.get('message')))
        this.save(message='%d iterations, %d failed' % (iterations, failed))
        this.set_output('iterations', iterations)
        try:
            stop_form.wait(timeout=config['interval_seconds'])
        except flow_api.MessageResponseTimeoutError:
            continue
        break

    response = stop_form.get('response')
    this.log('stopped by a person', reason=response.get('reason'))
    return this.success('stopped after %d iterations: %s' % (iterations, response.get('reason', 'no reason given')))
