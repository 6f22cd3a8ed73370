"""
inputs:
    - message_id:
        type: str
        required: False
        doc: the form that was answered. Without it the form is made, and this flow started once more to wait for it.
    - flow_name:
        type: str
        required: False
        doc: what to propose in the form
"""

import datetime, pytz
import dateutil.relativedelta as rd

import flow_api


def parse_time(text):
    for fmt in ('%H:%M:%S%z', '%H:%M:%S'):
        try:
            return datetime.datetime.strptime(text, fmt).timetz()
        except ValueError:
            continue
    raise ValueError('not a time: %s' % text)


def next_start(now, day, at, zone):
    if at.tzinfo is None:
        now = now.astimezone(pytz.timezone(zone))
    start = datetime.datetime.combine(now.date().replace(day=day), at)
    if start.tzinfo is None:
        start = pytz.timezone(zone).localize(start)
    return start + rd.relativedelta(months=1) if start < now else start


def handler(system: flow_api.System, this: flow_api.Execution):
    inputs = this.get('input_value') or {}
    message_id = inputs.get('message_id')
    if message_id is None:
        message = system.message(
            subject='Start a flow every month',
            body={
                'type': 'object',
                'properties': {
                    'flow name': {
                        'label': 'Which flow?', 'element': 'string', 'type': 'string',
                        'example': inputs.get('flow_name'), 'default': inputs.get('flow_name'), 'order': 1,
                    },
                    'day': {'label': 'Day of the month', 'element': 'number', 'type': 'number', 'default': 1, 'order': 2},
                    'time': {'label': 'Time', 'element': 'time', 'type': 'string', 'format': 'time', 'default': '08:30', 'order': 3},
                    'max': {'label': 'How often (for ever if empty)', 'element': 'number', 'type': 'number', 'default': None, 'order': 4},
                    'start': {'label': 'Start', 'element': 'submit', 'type': 'boolean', 'order': 5},
                },
                'required': ['flow name', 'day', 'time'],
            },
        )
        message_id = message.get('id')
        this.save(output_value={'message_id': message_id})
        this.flow('operations/monthly start', name='Monthly start', message_id=message_id, wait=False)
        return this.success('requested details')

    response = system.message(message_id).wait().get('response')
    this.log(response=response)
    day, at = int(response['day']), parse_time(response['time'])
    maximum = response.get('max')
    zone = response.get('timezone', 'Europe/Vienna')
    this.save(name=f'Monthly start of {response["flow name"]}')
    iterations = 0
    while maximum is None or iterations < maximum:
        now = datetime.datetime.now(datetime.timezone.utc)
        start = next_start(now, day, at, zone)
        this.save(message=start.isoformat(sep=' ', timespec='minutes'))
        this.set_output('next', start.isoformat())
        this.sleep((start - now).total_seconds())
        iterations += 1
        this.flow(response['flow name'], inputs={'iteration': iterations}, name=f'#{iterations}', wait=False)
    return this.success(f'started {iterations} times')
