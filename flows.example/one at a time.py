"""A lock: reads a counter, takes its time, and writes it back. Without the lock, runs at the same time would be lost.

Try:  for n in 1 2 3; do headrace run 'one at a time' --no-wait; done
      headrace locks
      headrace settings show counter
"""


def handler(system, this):
    counter = system.setting('counter', init={'value': {'runs': 0}})
    with this.lock('counter', timeout=60):
        runs = counter.load('value')['runs'] + 1       # read anew, now that nobody else may write
        this.sleep(0.2)
        counter.save(value={'runs': runs})
    return this.success(f'number {runs}')
