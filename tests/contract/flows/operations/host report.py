import re
import subprocess


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def handler(system, this, inputs):
    kernel, release, machine = run('uname', '-srm').split()
    disks = []
    for line in run('df', '-P', '-k', *inputs.get('mounts', ['/'])).splitlines()[1:]:
        device, size, used, free, percent, mount = re.split(r'\s+', line, maxsplit=5)
        disks.append({'mount': mount, 'size_gb': round(int(size) / 1024 ** 2, 1), 'percent': int(percent.rstrip('%'))})
    # what a subprocess writes by itself is found in the log
    subprocess.run(['sh', '-c', 'echo "uptime: $(cut -d. -f1 /proc/uptime) s"'], check=True)
    limit = inputs.get('limit_percent', 101)
    this.set_output('host', {'kernel': kernel, 'release': release, 'machine': machine})
    this.set_output('disks', disks)
    full = [d['mount'] for d in disks if d['percent'] >= limit]
    if full:
        return this.error('nearly full: ' + ', '.join(full))
    return this.success(f'{kernel} {release}, {len(disks)} disks')
