import flow_api

SCRIPT = '''
uname -sn
LOAD=$(cut -d' ' -f1 /proc/loadavg)
KERNEL=$(uname -r)
echo "load $LOAD"
    #OUTPUT_VAR(LOAD)
#OUTPUT_VAR(KERNEL)
'''


def ssh(this, host, **more):
    connection = {'hostname': host, 'username': 'ops', 'port': 22, 'protect_inputs': ['password']}
    return this.flow('provisioning/fake ssh', input_value=dict(connection, script=SCRIPT, **more), name='ssh ' + host, run=False)


def handler(system, this):
    """ a report of all hosts """
    inputs = this.get('input_value') or {}
    hosts = inputs.get('hosts', system.setting('hosts').get('value'))
    executions = {host: ssh(this, host, password='correct horse', script_timeout=30).run_async() for host in hosts}
    this.wait_for(*executions.values(), return_when=system.return_when.ALL_ENDED)

    lines = []
    high = []
    for host, execution in executions.items():
        outputs = execution.get('output_value')
        if execution.get('status') == 'ENDED_SUCCESS':
            load = float(outputs['var']['LOAD'])
            lines.append('%-8s load %5.2f kernel %s' % (host, load, outputs['var']['KERNEL']))
            if load > inputs.get('max_load', 4):
                high.append(host)
        elif 'retcode' in outputs:
            lines.append('%-8s script failed (%s): %s' % (host, outputs['retcode'], outputs['report'].strip().splitlines()[-1]))
        else:
            lines.append('%-8s %s' % (host, execution.get('message')))
    try:
        ssh(this, hosts[0]).run()
    except flow_api.DependencyFailedError as err:
        this.log('first host', err.execution.get('output_value'))
    system.file('reports/load of all hosts.txt').save_text_content('\n'.join(lines) + '\n')
    this.save(output_value={'report': lines, 'high': high})
    return this.success('%d hosts, high load: %s' % (len(hosts), ', '.join(high) or 'none'))
