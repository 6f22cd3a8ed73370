"""
Starts a flow at the times of a recurrence rule (RFC 5545), local time.

inputs:
    flow      which flow to start
    rule      e.g. FREQ=DAILY;BYHOUR=2;BYMINUTE=30;BYSECOND=0
    timezone  default Europe/Vienna
    runs      how often, default: for ever
"""
import datetime

import dateutil.parser
import dateutil.rrule
import pytz


def next_time(rule, tz, after):
    # the rule works on naive local time, localize() knows about summer time
    local = after.astimezone(tz).replace(tzinfo=None)
    naive = dateutil.rrule.rrulestr(rule, dtstart=local.replace(microsecond=0)).after(local)
    return None if naive is None else tz.localize(naive)


def handler(system, this, inputs):
    tz = pytz.timezone(inputs.get('timezone', 'Europe/Vienna'))
    rule = inputs.get('rule', 'FREQ=DAILY;BYHOUR=2;BYMINUTE=30;BYSECOND=0')
    if inputs.get('preview_from'):
        # only tell what would happen
        when = dateutil.parser.isoparse(inputs['preview_from'])
        for _ in range(inputs.get('runs', 3)):
            when = next_time(rule, tz, when)
            this.append_output('times', when.isoformat())
        return this.success('this was a preview')

    started = 0
    last = this.now()
    while inputs.get('runs') is None or started < inputs['runs']:
        when = next_time(rule, tz, max(last, this.now()))
        if when is None:
            break
        last = when
        this.save(message=f'next start {when.isoformat(sep=" ", timespec="seconds")}')
        this.sleep_until(when)
        late = (datetime.datetime.now(datetime.timezone.utc) - when).total_seconds()
        this.log(f'start #{started + 1}', late=round(late, 3))
        this.flow(inputs['flow'], planned_for=when.isoformat(), name=f"{inputs['flow']} @ {when:%H:%M:%S}", wait=False)
        started += 1
        this.append_output('times', when.isoformat())
    return this.success(f'started {started} times')
