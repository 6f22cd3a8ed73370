"""Deletes files older than some days; keeps the newest of each folder."""
import datetime

FORMAT = '%Y-%m-%dT%H:%M:%S.%f%z'


def handler(system, this, inputs):
    days = inputs.get('days', 30)
    now = datetime.datetime.now(datetime.timezone.utc)
    limit = now - datetime.timedelta(days=days)
    dry = inputs.get('dry_run', False)
    folders = {}
    for file in system.files(dir=inputs.get('dir', 'exports'), glob=inputs.get('glob', '*.csv')):
        name, size, modified = file.get('name', 'size', 'modified_at')
        at = datetime.datetime.strptime(modified, FORMAT)
        folders.setdefault(name.rpartition('/')[0], []).append((at, name, size, file))
    freed = 0
    deleted = []
    for folder, files in folders.items():
        files.sort(key=lambda f: f[:2], reverse=True)
        for at, name, size, file in files[1:]:
            if at > limit:
                continue
            this.log('delete' if not dry else 'would delete', file=name, modified=at)
            if not dry:
                file.delete()
            deleted.append(name)
            freed += size
    this.set_output(deleted=sorted(deleted), freed=freed)
    return this.success(f'{len(deleted)} files, {freed} bytes')
