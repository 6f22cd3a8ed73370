"""
Rotates a password: it is made here, kept in the vault, and used by tasks that never show it.
"""
import secrets
import string


def handler(system, this, inputs):
    vault = system.vault_config(inputs.get('vault', 'office vault'))
    path = inputs.get('path', 'apps/crm')
    old = vault.read_secret(path) if inputs.get('rotate_existing') else {}
    alphabet = string.ascii_letters + string.digits
    if 'take_from' in inputs:
        # somebody else made it
        password = vault.read_secret(inputs['take_from'])['password']
    else:
        password = ''.join(secrets.choice(alphabet) for _ in range(24))
    vault.write_secret(path, {'user': inputs['user'], 'password': password, 'serial': old.get('serial', 0) + 1})

    again = vault.read_secret(path)
    assert again['password'] == password
    this.log('written and read', secret=again)
    this.set_output('serial', again['serial'])

    # straight from the vault into a task
    direct = this.task(
        'REST',
        name='with a token from the vault',
        url=f"{inputs['base_url']}/crm/contacts",
        params={'via': 'token'},
        headers={'X-Api-Token': f'vault.secret({vault.get("name")}:{path}.password)'},
    )
    this.set_output('contacts', direct.get('output_value')['json'])
    this.set_output('direct', direct.get('id'))

    # and through a connection, as most flows do
    system.connection(
        'crm by vault',
        connection_type='REST',
        value={'url': f"{inputs['base_url']}/crm/contacts", 'username': inputs['user']},
        vault_secrets={'password': f'{vault.get("name")}:{path}.password'},
    )
    connected = this.connect('crm by vault', params={'via': 'connection'})
    this.set_output('via', connected.get('output_value')['json']['via'])
    this.set_output('connected', connected.get('id'))
    return this.success(f'rotated {again["serial"]} times')
