"""Plots, tables and HTML pages, from values and files, never from a network.

`run_summary` reads a run folder. `elements` holds the parts of a page (plots, tables, sections); `training_plots`,
`retrieval_plots`, `heat_map` and `rank_lists` make them. `run_page` and `chain_page` assemble them, `page` writes HTML,
`render` SVG and figure files, `tables` table files. Matplotlib and jinja2 are imported where they are used.
"""
