def handler(system, this, inputs):
    this.task('REST', url=f"{inputs['base_url']}/echo/{inputs['stage']}", method='PUT',
              json={k: inputs[k] for k in ('service', 'version')}, name=f"{inputs['service']} → {inputs['stage']}")
    return this.success(f"{inputs['version']} on {inputs['stage']}")
