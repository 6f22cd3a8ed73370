"""Start workers, wait for all of them, tell who did what."""
import collections


def handler(system, this, inputs):
    queue = inputs.get('queue', 'work queue')
    system.setting(queue, init={'value': []})
    system.setting(inputs['done'], value=[])
    producers = [
        this.flow('queue/enqueue', queue=queue, prefix=prefix, count=inputs.get('each', 4), name=f'producer {prefix}', run=False)
        for prefix in ('a', 'b', 'c')
    ]
    for producer in producers:
        producer.run_async()
    this.wait_for(*producers)
    workers = [
        this.flow('queue/worker', queue=queue, done=inputs['done'], name=f'worker {n}', wait=False,
                  work_seconds=inputs.get('work_seconds', 1))
        for n in range(inputs.get('workers', 3))
    ]
    this.wait_for(workers)
    done = system.setting(inputs['done']).get('value')
    left = system.setting(queue).get('value')
    this.set_output(
        ids=sorted(item['id'] for item in done),
        by_worker=dict(collections.Counter(item['worker'] for item in done)),
        counted=sum(w.get('output_value')['count'] for w in workers),
        left=left,
    )
    return this.success(f'{len(done)} items')
