import collections
import datetime


def seconds(start, end):
    parse = lambda t: datetime.datetime.strptime(t, '%Y-%m-%dT%H:%M:%S.%f%z')
    return (parse(end) - parse(start)).total_seconds()


def handler(system, this, inputs):
    since = inputs.get('since') or (
        datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
    ).isoformat(timespec='microseconds')
    wanted = {'and': [
        {'field': 'created_at', 'op': 'ge', 'value': since},
        {'field': 'type', 'op': 'eq', 'value': 'FLOW'},
        {'not': {'field': 'id', 'op': 'eq', 'value': this.get('id')}},
    ]}
    if 'name_like' in inputs:
        wanted['and'].append({'field': 'name', 'op': 'like', 'value': inputs['name_like']})
    by_status = collections.Counter()
    failures = []
    slowest = (0, None)
    for execution in system.executions(filter_=wanted):
        name, status, message, started, ended = execution.get('name', 'status', 'message', 'started_at', 'ended_at')
        by_status[status] += 1
        if status == 'ENDED_ERROR':
            failures.append({'name': name, 'message': message})
        if started and ended:
            slowest = max(slowest, (seconds(started, ended), name))
    this.set_output(by_status=dict(by_status), failures=failures, slowest=slowest[1])
    system.setting('audit/latest', value={'since': since, 'counts': dict(by_status)})
    return this.success(f'{sum(by_status.values())} executions, {len(failures)} failures')
