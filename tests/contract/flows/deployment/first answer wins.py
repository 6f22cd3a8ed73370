import time


# several contestants look for the same thing; the one that finds it cancels the others
def handler(system, this, inputs):
    if 'siblings' not in inputs:
        names = inputs.get('names', ['anna', 'bert', 'cleo'])
        board = 'race/' + this.get('id')
        system.setting(board, value=[])
        children = [
            this.flow('deployment/first answer wins', siblings=board, me=n, winner=inputs.get('winner') == n, name=n,
                      seconds=inputs.get('seconds', 3600), run=False)
            for n in names
        ]
        system.setting(board).save(value=[c.get('id') for c in children])
        [c.run_async() for c in children]
        this.wait_for(*children, return_when=system.return_when.ALL_ENDED)
        this.set_output('result', {c.get('name'): c.get('status') for c in children})
        system.setting(board).delete()
        return this.success('the winner is %s' % [c.get('name') for c in children if c.get('status') == 'ENDED_SUCCESS'][0])

    if not inputs['winner']:
        while True:
            try:
                this.sleep(inputs['seconds'])
            except:
                # somebody was careless with exceptions here, and must end all the same
                this.log('something happened, once more')
                time.sleep(0.2)
    for sibling in system.setting(inputs['siblings']).get('value'):
        if sibling != this.get('id'):
            system.execution(sibling).cancel()
    return this.success(inputs['me'] + ' found it')
