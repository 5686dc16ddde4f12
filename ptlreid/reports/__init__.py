"""Pictures and one HTML page, made from values and files and never from a model.

`pictures` holds what travels and `ink` draws it; `account` reads a run; `curves`, `cells`, `cmc`, `distances` (from the
counts of `verification`), `heat`, `ranklists` and `chains` make pictures; `sections` and `page` put them on a page,
`tables` writes tables for papers. Matplotlib and jinja2 are imported inside the functions that need them.
"""
