# fails on the first calls, like so many things
def handler(system, this):
    inputs = this.get('input_value')
    counter = system.setting('unsteady/' + inputs['id'], init={'value': 0})
    n = counter.get('value') + 1
    counter.save(value=n)
    if n <= inputs.get('fails', 2):
        raise RuntimeError('not yet, this was call %d' % n)
    this.set_output('calls', n)
    this.set_output('payload', inputs.get('payload'))
