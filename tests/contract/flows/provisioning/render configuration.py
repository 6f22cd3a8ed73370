"""Renders configuration files from templates, writes only those that changed."""
import hashlib

import pystache


def handler(system, this, inputs):
    values = system.setting('site').get('value')
    values.update(inputs.get('values', {}))
    renderer = pystache.Renderer(escape=lambda text: text, missing_tags='strict')
    changed, same = [], []
    for template in system.files(dir='templates', glob='*.mustache'):
        name = template.get('name')
        target = system.file(name.replace('templates/', 'rendered/').replace('.mustache', ''))
        try:
            text = renderer.render(template.get_text_content(), values)
        except pystache.context.KeyNotFoundError as error:
            return this.error(f'{name}: there is no value for {error.key!r}')
        new = hashlib.sha256(text.encode()).hexdigest()
        if target.exists() and hashlib.sha256(target.get_bytes_content()).hexdigest() == new:
            same.append(target.get('name'))
            continue
        target.save_text_content(text)
        changed.append(target.get('name'))
    this.set_output(changed=changed, same=same)
    return this.success(f'{len(changed)} changed, {len(same)} as they were')
