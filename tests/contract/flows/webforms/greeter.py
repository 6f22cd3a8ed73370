def handler(c, this):
    inputs = this.get('input_value')
    who = inputs['json'].get('who', 'nobody')
    this.set_output('greeting', 'hello %s' % who)
    this.set_output('agent', inputs['headers'].get('User-Agent'))
    return this.success()
