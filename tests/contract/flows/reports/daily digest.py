import datetime, textwrap
from lib.mail import send
import lib.tables

def handler(system, this, inputs):
    # the audit writes it, we tell it
    audit = system.setting('audit/latest')
    counts = audit.get('value')['counts'] if audit.exists() else {}
    rows = [{'status': k, 'executions': v} for k, v in sorted(counts.items())]
    text = textwrap.dedent('''\
        Good morning {user},

        {table}

        Yours, {workspace}
        ''').format(
            user=system.get_own_user().get('name'),
            workspace=system.get_own_client().get('name'),
            table=lib.tables.as_text(rows, ['status', 'executions']).replace('\n', '\n        ') if rows else 'nothing happened',
        )
    sent = send(this, inputs['gateway'], inputs.get('to', 'everybody@example.com'), 'Digest of %s' % datetime.date.today(), text)
    this.set_output('text', text)
    this.set_output('sent', sent.get('output_value')['json']['queued'])
