"""Tells which certificates end soon. Pure Python: no openssl needed."""
import datetime
import socket
import ssl


def days_left(host, port, authority, now):
    context = ssl.create_default_context(cadata=authority)
    with socket.create_connection((host, port), timeout=5) as raw:
        with context.wrap_socket(raw, server_hostname=host) as tls:
            certificate = tls.getpeercert()
    end = datetime.datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate['notAfter']), datetime.timezone.utc)
    return (end - now).days


def handler(system, this, inputs):
    now = datetime.datetime.now(datetime.timezone.utc)
    warn = inputs.get('warn_days', 21)
    authority = system.file(inputs['authority']).get('content') if 'authority' in inputs else None
    report = []
    for target in inputs['targets']:
        host, _, port = target.rpartition(':')
        try:
            left = days_left(host, int(port), authority, now)
        except ssl.SSLError as error:
            report.append({'target': target, 'state': 'not trusted', 'why': error.reason})
        except OSError as error:
            report.append({'target': target, 'state': 'unreachable', 'why': type(error).__name__})
        else:
            report.append({'target': target, 'state': 'soon' if left < warn else 'fine', 'days': left})
    this.set_output('report', report)
    for row in report:
        this.log(row.pop('target'), **row, level='INFO' if row['state'] == 'fine' else 'WARNING')
    bad = sum(row['state'] != 'fine' for row in report)
    if bad:
        return this.error(f'{bad} of {len(report)} certificates need attention')
    return this.success(f'{len(report)} certificates are fine')
