"""Deploys beside what is live, looks whether it is healthy, switches over, and back if users suffer."""
import flow_api


class NotHealthy(Exception):
    pass


def healthy(this, url, checks, pause):
    for number in range(checks):
        task = this.task('REST', url=url, expected_status_code=list(range(200, 600)), retry_backoff=False, name=f'check {number + 1}')
        if task.get('output_value')['status_code'] == 200:
            return
        this.sleep(pause)
    raise NotHealthy(url.rsplit('/', 2)[1])


def handler(system, this, inputs):
    base, version = inputs['base_url'], inputs['version']
    pause, checks = inputs.get('pause_seconds', 5), inputs.get('checks', 3)
    live = this.task('REST', url=f'{base}/router').get('output_value')['json']['active']
    idle = 'green' if live == 'blue' else 'blue'
    steps = []
    undo = []

    def done(what, how_to_undo=None):
        steps.append(what)
        this.set_output('steps', steps)
        if how_to_undo:
            undo.insert(0, how_to_undo)

    try:
        this.task('REST', url=f'{base}/releases/{idle}', method='PUT', json={'version': version})
        done(f'{version} on {idle}')
        if not inputs.get('skip_checks'):
            healthy(this, f'{base}/releases/{idle}/health', checks, pause)
            done(f'{idle} is healthy')
        this.task('REST', url=f'{base}/router', method='PUT', json={'active': idle})
        done(f'switched to {idle}', lambda: this.task('REST', url=f'{base}/router', method='PUT', json={'active': live}, name='switch back'))
        healthy(this, f'{base}/releases/{idle}/health', checks, pause)
        done('users are happy')
    except (NotHealthy, flow_api.DependencyFailedError) as error:
        this.log('rolling back', because=str(error), level='ERROR')
        for step in undo:
            step()
        this.set_output('rolled_back', len(undo))
        return this.error(f'{version} is not healthy on {error}, {live} stays live')
    return this.success(f'{version} is live on {idle}')
