"""What a reader sees of a report: the table on the terminal, the Markdown and the HTML page.

Nothing here measures or imports torch: a page is made from ``report.json`` and the figures of a run folder.
"""
