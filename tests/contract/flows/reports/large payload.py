"""Passes a large value from flow to flow, through a file and back, and sees that nothing of it is lost."""
import hashlib


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def handler(system, this, inputs):
    if inputs.get('rows') is not None:
        # the one at the other end
        text = '\n'.join(inputs['rows'])
        this.set_output('digest', digest(text))
        this.set_output('rows', inputs['rows'][::-1])
        return this.success(f'{len(text):,} characters')
    line = 'ünïcödé and 64 plain characters to make it long enough, number '
    rows = [f'{line}{number:07d}' for number in range(inputs['megabytes'] * 1024 * 1024 // 70)]
    text = '\n'.join(rows)
    child = this.flow('reports/large payload', rows=rows, name='the other end')
    back = child.get('output_value')
    file = system.file('large/payload.txt')
    file.save_text_content(text)
    this.set_output('same_digest', back['digest'] == digest(text))
    this.set_output('same_rows', back['rows'][::-1] == rows)
    this.set_output('same_file', digest(file.get_text_content()) == digest(text))
    this.set_output('characters', len(text))
    this.set_output('payload', text)
    file.delete()
    return this.success(child.get('message'))
