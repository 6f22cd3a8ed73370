import csv
import io


def to_csv(rows, columns, delimiter=';'):
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, delimiter=delimiter, lineterminator='\n', extrasaction='ignore')
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def from_csv(text, delimiter=';'):
    return [
        {(k or '').strip(): (v or '').strip() for k, v in row.items()}
        for row in csv.DictReader(io.StringIO(text), delimiter=delimiter)
    ]


def as_text(rows, columns):
    """A table for people: columns as wide as they need to be."""
    cells = [list(columns)] + [[str(row.get(c, '')) for c in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return '\n'.join('  '.join(cell.ljust(w) for cell, w in zip(line, widths)).rstrip() for line in cells)
