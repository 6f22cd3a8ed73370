import time

def handler(system, this):
    inputs = this.get('input_value')
    base = inputs.get('base_url')
    if not base:
        return this.error('base_url is missing')
    poll = inputs.get('poll_seconds', 30)
    give_up_after = inputs.get('give_up_after', 3600)

    job = this.task('REST', url=base + '/jobs', method='POST', json={'kind': 'import'},
                    expected_status_code=201).get('output_value')['json']
    this.log(job=job)
    started = time.time()
    tries = 0
    while 1:
        tries = tries + 1
        task = this.task('REST', url='%s/jobs/%s' % (base, job['id']), run=False, name='poll %d' % tries)
        try:
            task.run()
        except:
            this.log('could not ask', message=task.get('status_message'))
            if tries > 10:
                raise
            this.sleep(poll)
            continue
        state = task.get('output_value')['json']
        this.save(message='%d %%' % state['percent'])
        if state['done']:
            break
        if time.time() - started > give_up_after:
            return this.error('job %s is not done after %d seconds' % (job['id'], give_up_after))
        this.sleep(poll)
    this.save(output_value={'job': job['id'], 'tries': tries})
    return this.success('done after %d tries' % tries)
