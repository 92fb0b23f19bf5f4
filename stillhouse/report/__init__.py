"""What a run directory says, for people: the table in the terminal and one self-contained HTML page.

Reads ``recipe.yaml``, ``events.jsonl`` and ``result.json`` alone, so any run can be reported on any machine, also
one that is unfinished. No torch here; matplotlib and jinja2 are imported only when the page is written.
"""
