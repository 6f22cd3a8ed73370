"""The weekly list of all servers: CSV into a file, a summary by mail."""
import collections
import datetime

from lib import mail, tables

COLUMNS = ['name', 'site', 'os', 'cpu', 'ram_gb']


def handler(system, this, inputs):
    servers = this.connect('inventory', url=f"{inputs['base_url']}/servers").get('output_value')['json']
    servers.sort(key=lambda s: s['name'])
    day = inputs.get('day') or datetime.date.today().isoformat()
    path = f'reports/inventory {day}.csv'
    system.file(path, content=tables.to_csv(servers, COLUMNS))
    old = [s['name'] for s in servers if s['os'] in inputs.get('outdated', ['debian 11'])]
    sites = collections.Counter(s['site'] for s in servers)
    text = tables.as_text(servers, COLUMNS[:3]) + '\n\n' + '\n'.join(f'{s}: {n}' for s, n in sorted(sites.items()))
    mail.send(
        this, inputs['base_url'], inputs['to'], f'Inventory of {day}', text,
        attachments=[{'name': path.split('/')[-1], 'bytes': system.file(path).get('size')}],
    )
    this.set_output(file=path, servers=len(servers), outdated=old)
    return this.success(f'{len(servers)} servers, {len(old)} outdated')
