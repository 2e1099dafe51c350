"""A report worth sending: one HTML file that needs nothing else, and the same as Markdown and CSV.

`charts` are plots as SVG, `html` and `text` the documents, `files` writes them. Everything shown is in the runs'
report.json, but for the pictures of masks, which are made from the models beside it.
"""
