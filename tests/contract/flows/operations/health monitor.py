#
# Looks at all services, tells the chat when one changes its state.
#
import logging
import sys

import requests

log = logging.getLogger('monitor')
URL = 'http://localhost/services'


def check(session, url, name):
    try:
        answer = session.get(f'{url}/{name}', timeout=5)
        answer.raise_for_status()
        return answer.json()['status']
    except requests.HTTPError as e:
        log.warning('%s answers %s', name, e.response.status_code)
        return 'down'
    except requests.RequestException as e:
        log.error('%s: %s', name, type(e).__name__)
        return 'unreachable'


def handler(system, this):
    logging.basicConfig(level=logging.INFO, format='%(levelname)s %(name)s: %(message)s')
    inputs = system.get('input_value')
    url = inputs.get('url', URL)
    services = inputs.get('services', ['web', 'db', 'mail'])
    store = system.setting('monitor state')
    before = store.get('value') if store.exists() else {}
    now = {}
    print('checking', len(services), 'services')
    with requests.Session() as session:
        session.headers['User-Agent'] = 'health-monitor/1.0'
        for name in services:
            now[name] = check(session, inputs['elsewhere'][name] if name in inputs.get('elsewhere', {}) else url, name)
            print(f'{name:10} {now[name]}')
    changed = {n: {'from': before.get(n, 'unknown'), 'to': s} for n, s in now.items() if before.get(n) != s}
    if changed and before:
        print('state changes:', changed, file=sys.stderr)
        requests.post(inputs['chat'], json={'text': ', '.join(sorted(changed))}, timeout=5)
    store.save(value=now)
    this.set_output(state=now, changed=changed)
    bad = sorted(n for n, s in now.items() if s != 'ok')
    return this.error(f'not well: {", ".join(bad)}') if bad else this.success('all well')
