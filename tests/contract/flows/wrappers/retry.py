"""
Runs a child again until it succeeds.

    this.using('wrappers/retry', attempts=5, delay=10, factor=2).flow('unsteady')
"""
import flow_api


def handler(system, this):
    inputs = this.get('input_value')
    attempts = inputs.get('attempts', 3)
    delay = inputs.get('delay', 10)
    child = system.execution(inputs['child_id'])
    name = child.get('name')
    for attempt in range(1, attempts + 1):
        try:
            if attempt == 1:
                child.run()
            else:
                child = child.clone(name='%s (attempt %d)' % (name, attempt), attempt=attempt)
        except flow_api.DependencyFailedError as err:
            child = err.execution
            this.log('attempt %d failed' % attempt, message=child.get('message'))
            if attempt == attempts:
                return this.error('%s failed %d times: %s' % (name, attempts, child.get('message')))
            this.sleep(delay)
            delay = delay * inputs.get('factor', 2)
        else:
            break
    this.save(output_value=child.get('output_value'))
    this.set_output('attempts', attempt)
    return this.success('%s succeeded at attempt %d' % (name, attempt))
