"""
Builds one machine. Only one is built at a time at a site, and what was built is taken away again if it does not work.
"""
import flow_api


def handler(system, this, inputs):
    base = inputs['base_url']
    site = inputs.get('site', 'vienna')
    machine = None
    keep = False
    with this.lock(f'site {site}', timeout=inputs.get('lock_timeout', 600)):
        try:
            machine = this.task(
                'REST', url=f'{base}/machines', method='POST', expected_status_code=[201],
                json={'name': inputs['machine'], 'size': inputs.get('size', 'small'), 'site': site},
                name=f"order {inputs['machine']}",
            ).get('output_value')['json']
            for _ in range(60):
                machine = this.task('REST', url=f"{base}/machines/{machine['id']}").get('output_value')['json']
                if machine['state'] != 'building':
                    break
                this.save(message=f"{machine['id']} is {machine['state']}")
                this.sleep(inputs.get('poll_seconds', 10))
            if machine['state'] != 'running':
                raise RuntimeError(f"{machine['id']} is {machine['state']}")
            keep = True
        except flow_api.DependencyFailedError as error:
            why = error.execution.get('output_value').get('json') or {}
            return this.error(f"could not order: {why.get('error', error)}")
        finally:
            if machine and not keep:
                this.task('REST', url=f"{base}/machines/{machine['id']}", method='DELETE', name='clean up')
                this.log('taken away again', machine['id'])
    this.set_output('machine', machine)
    return this.success(f"{machine['id']} is running at {site}")
