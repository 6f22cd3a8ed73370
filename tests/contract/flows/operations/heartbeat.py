def handler(system, this, inputs):
    # remember when we were last alive, for those who look at the setting
    system.setting('last heartbeat', value={'at': this.get('started_at'), 'iteration': inputs.get('iteration')})
    if 'fail_at' in inputs and inputs['iteration'] >= inputs['fail_at']:
        return this.error('no pulse')
