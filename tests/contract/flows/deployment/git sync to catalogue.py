"""
Reads a git repository and saves what is in it: flows/ as flows, settings/ as settings, files/ as files.
What was synced before and vanished from the repository is deleted.

Runs as a webhook of the repository (json.commit_sha) or by hand (ref).
"""
import base64
import os

import yaml

import flow_api


def handler(system: flow_api.System, this: flow_api.Execution):
    inputs = this.get('input_value')
    try:
        ref = inputs['json']['commit_sha']
    except (KeyError, TypeError):
        ref = inputs.get('ref', 'main')
    prefix = inputs.get('prefix', 'synced')
    commit = this.task('GIT', command='get', repository_url=inputs['repository_url'], ref=ref).get('output_value')
    this.log('syncing', sha=commit['commit_sha'], author=commit['author_name'], files=len(commit['files']))

    now = {'flow': [], 'setting': [], 'file': []}
    for file_ in commit['files']:
        path, filename = os.path.split(file_['name'])
        name, ext = os.path.splitext(filename)
        text = base64.b64decode(file_['content'])
        if path.startswith('flows') and ext == '.py':
            full = '/'.join(part for part in (prefix, path[6:], name) if part)
            system.flow(full).save(script=text.decode())
            now['flow'].append(full)
        elif path == 'settings' and ext in ('.yaml', '.yml'):
            system.setting(f'{prefix}/{name}').save(value=yaml.safe_load(text))
            now['setting'].append(f'{prefix}/{name}')
        elif path.startswith('files'):
            system.file(f'{prefix}/{filename}').save(content=file_['content'], convert_binary=False)
            now['file'].append(f'{prefix}/{filename}')
        else:
            this.log('ignored', file_['name'], level='DEBUG')

    memory = system.setting(f'sync state of {prefix}', init={'value': {}})
    before = memory.get('value').get('records', {})
    deleted = []
    for kind, names in before.items():
        for name in set(names) - set(now[kind]):
            record = getattr(system, kind)(name)
            if record.exists():
                record.delete()
                deleted.append(name)
    memory.save(value={'sha': commit['commit_sha'], 'records': now})
    this.save(output_value={'records': now, 'deleted': sorted(deleted), 'sha': commit['commit_sha']})
    return this.success(f"{commit['short_sha']}: {sum(map(len, now.values()))} records, {len(deleted)} deleted")
