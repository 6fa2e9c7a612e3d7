"""The report of a run: its files, read again and laid out on one page."""
