def handler(system, this, inputs):
    # remember when we were last alive, for those who look at the setting
    system.setting('last heartbeat', value={'at': this.get('started_at'), 'iteration': inputs.get('iteration')})
    if inputs.get('iteration') == inputs.get('fail_at'):
        return this.error('no pulse')
