"""A GIT task: who committed last, and which files are there.

A local repository can be read in developer mode.
Try, in a checkout:  headrace run 'reads a repository' repository_url=file://$PWD
"""


def handler(system, this, inputs):
    if 'repository_url' not in inputs:
        return this.error('give repository_url=… , for example file:///path/of/a/repository')
    commit = this.task('GIT', command='get', repository_url=inputs['repository_url']).get('output_value')
    this.set_output(
        sha=commit['commit_sha'],
        author=commit['author_name'],
        subject=commit['commit_message'].splitlines()[0],
        files=sorted(file['name'] for file in commit['files']),
    )
