"""Plots, tables and one HTML page, made from values and files and never from a network.

`run_summary` reads a run folder. `elements` holds what a page is made of (plots, tables, sections); `training_plots`,
`retrieval_plots`, `heat_map` and `rank_lists` make them. `run_page` and `chain_page` put them together, `page` writes
HTML, `render` SVG and figure files, `tables` table files. Matplotlib and jinja2 are imported where they are used.
"""
