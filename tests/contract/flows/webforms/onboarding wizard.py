"""
Several messages, one after the other, each made of what was answered before.
A step can be gone back to.
"""
from lib.forms import button, field, form


def ask(system, this, step, body, timeout):
    this.save(message=f'step {step} of 3')
    message = system.message(subject=f'New colleague ({step}/3)', message_type='POPUP', body=body)
    this.set_output('step', step)
    return message.wait(timeout=timeout).get('response')


def handler(system, this, inputs):
    timeout = inputs.get('timeout_seconds', 7 * 24 * 3600)
    answers = {}
    step = 1
    while step <= 3:
        if step == 1:
            answers.update(ask(system, this, 1, form(
                required=['full name', 'start'],
                **{
                    'full name': field('Full name', 1, example='Ada Lovelace'),
                    'start': field('First day', 2, 'date', format='date'),
                    'at': field('Welcome at', 3, 'time', format='time', default='09:00:00'),
                    'next': button('Next', 9),
                },
            ), timeout))
            step = 2
        elif step == 2:
            first = answers['full name'].split()[0].lower()
            reply = ask(system, this, 2, form(
                required=['account'],
                hello=field('', 1, 'markdown', description=f'An account for **{answers["full name"]}**'),
                account=field('Account', 2, default=first, pattern='^[a-z]+$'),
                password=field('First password', 3, 'password'),
                department=field('Department', 4, 'dropdown', enum=['it', 'sales', 'human resources'], default='it'),
                laptop=field('Needs a laptop', 5, 'toggle', 'boolean', default=True),
                back=button('Back', 8, required=[]),
                next=button('Next', 9),
            ), timeout)
            if reply.get('back'):
                step = 1
                continue
            answers.update(reply)
            step = 3
        else:
            reply = ask(system, this, 3, form(
                summary=field('', 1, 'markdown', description='\n'.join(
                    f'* {key}: {value}' for key, value in answers.items() if key not in ('next', 'password')
                )),
                notes=field('Anything else?', 2, 'textarea'),
                create=button('Create', 8),
                forget=button('Forget it', 9),
            ), timeout)
            if reply.get('forget'):
                return this.error('somebody changed their mind')
            answers['notes'] = reply.get('notes', '')
            step = 4
    colleagues = system.setting('colleagues')
    colleagues.list_append({
        'name': answers['full name'], 'account': answers['account'], 'department': answers['department'],
        'laptop': answers['laptop'], 'start': f"{answers['start']}T{answers['at']}", 'notes': answers['notes'],
        'password_length': len(answers.get('password', '')),
    })
    return this.success(f"{answers['account']} was created")
