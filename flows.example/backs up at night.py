# /// script
# [tool.headrace]
# description = "Would run every night, one at a time, twice if it fails, and somebody is told"
# schedule = {cron = "H 2 * * *", timezone = "Europe/Vienna", enabled = false}
# expect = {start_within = "10m", finish_within = "2h"}
# concurrency = {limit = 1, when_full = "skip"}
# retry = {attempts = 2, delay = "1s", jitter = 0.1}
# on_failure = "tells a chat"
# on_success = "pings a check"
# tags = ["nightly"]
# ///
# What an operator wants of a flow stands in its metadata; docs/policies.md tells of all of it.
# Try: headrace run 'backs up at night' fails:=true, then headrace executions --tag nightly


def handler(system, this, inputs):
    if inputs.get('fails'):
        raise RuntimeError('the disk of the backup is full')
    return {'files': 42}
