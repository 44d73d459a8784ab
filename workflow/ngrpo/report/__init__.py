"""What a study found, shown: tables, figures, the page."""
