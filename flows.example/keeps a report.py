"""Reads what the repository declares, and writes a file that stays.

Try:  headrace run 'keeps a report'
      headrace files show reports/today.txt
"""

import datetime


def handler(system, this):
    limits = system.setting('quota').get('value')        # settings/quota.yaml, or what somebody saved since
    today = datetime.date.today().isoformat()
    lines = [f'{name}: at most {value}' for name, value in sorted(limits.items())]
    report = system.file('reports/today.txt')
    report.save_text_content('\n'.join([today, *lines]) + '\n')
    this.set_output('bytes', report.content_size_bytes())
    return this.success(f'{len(lines)} limits')
