"""
Stands for an SSH task where there is none: takes the same inputs, gives the same outputs.

A script is not run but looked up by the host; '#OUTPUT_VAR(NAME)' lines decide which variables come back.
"""
import re

HOSTS = {
    'web-1': (0, 'Linux web-1\nload 0.42\n', {'LOAD': '0.42', 'KERNEL': '6.1.0'}),
    'web-2': (0, 'Linux web-2\nload 7.90\n', {'LOAD': '7.90', 'KERNEL': '5.10.0'}),
    'db-1': (127, 'bash: line 3: vmstat: command not found\n', {}),
}


def handler(system, this, inputs):
    hostname = inputs['hostname']
    if hostname not in HOSTS:
        return this.error(f'could not connect to {hostname}:{inputs.get("port", 22)}')
    retcode, report, values = HOSTS[hostname]
    wanted = re.findall(r'^\s*#OUTPUT_VAR\((\w+)\)\s*$', inputs['script'], re.MULTILINE)
    this.set_output('retcode', retcode)
    this.set_output('report', report)
    this.set_output('var', {name: values[name] for name in wanted if name in values})
    if retcode:
        return this.error(f'the script ended with {retcode}')
