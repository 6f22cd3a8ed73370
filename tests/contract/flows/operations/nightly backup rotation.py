"""
Grandfather-father-son rotation of backups, all of them files:
daily ones are kept for a week, those of a Sunday for a month, those of the first for a year.
"""
import datetime
import json

from dateutil.relativedelta import relativedelta


def wanted(day, today):
    if day > today - relativedelta(days=7):
        return 'daily'
    if day.weekday() == 6 and day > today - relativedelta(months=1):
        return 'weekly'
    if day.day == 1 and day > today - relativedelta(years=1):
        return 'monthly'
    return None


def handler(system, this):
    inputs = this.get('input_value')
    today = datetime.date.fromisoformat(inputs['today']) if 'today' in inputs else datetime.date.today()
    folder = inputs.get('folder', 'backups')
    what = {s.get('name'): s.get('value') for s in system.settings() if s.get('name').startswith('shop/')}
    name = '%s/%s.json' % (folder, today)
    system.file(name).save_text_content(json.dumps(what, indent=1, sort_keys=True))
    this.log('written', file=name, bytes=system.file(name).content_size_bytes())
    kept, dropped = {}, []
    for backup in system.files(dir=folder):
        path = backup.get('name')
        try:
            day = datetime.date.fromisoformat(path.split('/')[-1].replace('.json', ''))
        except ValueError:
            this.log('not a backup', path, level='WARNING')
            continue
        tier = wanted(day, today)
        if tier is None:
            backup.delete()
            dropped.append(str(day))
        else:
            kept.setdefault(tier, []).append(str(day))
    this.set_output('kept', kept)
    this.set_output('dropped', dropped)
    return this.success('kept %d, dropped %d' % (sum(map(len, kept.values())), len(dropped)))
