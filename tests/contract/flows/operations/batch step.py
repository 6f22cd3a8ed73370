def handler(system, this, inputs):
    for n in range(inputs.get('steps', 10)):
        this.set_output('step', n + 1)
        this.sleep(inputs.get('seconds', 1))
