"""Asks many services at once; some are down, and that must not stop the others."""
import flow_api


def handler(system, this):
    inputs = this.get('input_value')
    base = inputs['base_url']
    tasks = {}
    for name in inputs['services']:
        tasks[name] = this.task('REST', url='%s/services/%s' % (base, name), name='ask ' + name, retry_backoff=False, wait=False)
    # one that is slow on purpose: the first answer is what we want of those
    mirrors = [this.task('REST', url='%s/%s' % (base, path), wait=False, name='mirror ' + path) for path in inputs['mirrors']]
    first = this.wait_for(*mirrors, return_when=system.return_when.FIRST_ENDED)
    this.set_output('fastest', first[0].get('name'))
    for mirror in mirrors:
        if mirror.id not in [f.id for f in first]:
            mirror.cancel()
    this.wait_for(tasks.values(), return_when=system.return_when.ALL_ENDED)
    failed = []
    for name, task in tasks.items():
        if task.get('status') == 'ENDED_ERROR':
            failed.append(name)
            # the answer of a failed task can be read
            this.log(name, task.get('output_value')['status_code'], task.get('output_value')['json'])
    # try those again, with patience
    again = [this.task('REST', url='%s/flaky/%s' % (base, name), name='again ' + name, run=False,
                       retry_backoff={'initial': 0.05, 'maximum': 0.2, 'multiplier': 2, 'deadline': 20}).run_async() for name in failed]
    try:
        this.wait_for(*again, timeout=30)
    except flow_api.DependencyFailedError as ex:
        return this.error('%s is really down: %r' % (ex.execution.get('name'), ex))
    mirrors[0].wait(return_when='ALL_ENDED')
    this.wait_for(*mirrors, return_when=system.return_when.ALL_ENDED)
    this.set_output(
        failed=failed,
        recovered=[t.get('output_value')['json']['name'] for t in again],
        mirrors=[m.get('status') for m in mirrors],
    )
    return this.success('%d asked, %d failed at first' % (len(tasks), len(failed)))
