"""
Calls a service that may be down; after some failures it is left alone for a while.

state (a setting): closed → open after `limit` failures → half open after `rest_seconds` → closed or open again
"""
import datetime

import flow_api


def handler(system, this, inputs):
    name = inputs['service']
    state = system.setting(f'circuit/{name}', init={'value': {'failures': 0, 'open_since': None}})
    now = datetime.datetime.now(datetime.timezone.utc)
    with state:
        value = state.load('value')
        if value['open_since']:
            since = datetime.datetime.fromisoformat(value['open_since'])
            if (now - since).total_seconds() < inputs.get('rest_seconds', 60):
                this.set_output('circuit', 'open')
                return this.error(f'{name} is left alone')
            this.log('half open: one try')
        try:
            this.task('REST', url=f"{inputs['base_url']}/flaky/{name}", retry_backoff=False)
        except flow_api.DependencyFailedError as error:
            value['failures'] += 1
            if value['failures'] >= inputs.get('limit', 3):
                value['open_since'] = now.isoformat()
            state.save()
            this.set_output('circuit', 'open' if value['open_since'] else 'closed')
            return this.error(f"failure {value['failures']}: {error.execution.get('output_value')['status_code']}")
        value.update(failures=0, open_since=None)
        state.save()
    this.set_output('circuit', 'closed')
    return this.success(f'{name} answered')
