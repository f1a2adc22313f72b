"""Run experiments cell by cell, keep every row, and show rows beside the published numbers; knows no panel."""
